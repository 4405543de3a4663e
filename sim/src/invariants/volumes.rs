//! W23: the data of a volume is never wiped while the volume exists, whatever its size becomes, and a task
//! finds in its volumes what was written there since they were made, and nothing from before.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::resources::Resources;
use meros_slave_core::{Checkpoint, Claims, MountedVolume, Record, VolumeDirectory, VolumeKey};

use super::{Broken, check};

/// What is known of the directories of one slave.
#[derive(Debug, Default)]
struct Directories {
    /// The volume whose tasks have written there.
    written: BTreeMap<VolumeDirectory, VolumeKey>,
    wiped: BTreeSet<VolumeDirectory>,
}

/// The directories of all slaves, by their place in the plan.
#[derive(Debug, Default)]
pub(crate) struct Volumes(BTreeMap<usize, Directories>);

/// A record is about to become durable: a volume that was there and still is keeps its directory. One
/// that is destroyed and made again is not there in between, since each operation has its own record.
pub(crate) fn check_record(disk: &Checkpoint, record: &Record) -> Result<(), Broken> {
    let Record::ClaimsChanged(after) = record else {
        return Ok(());
    };
    for (key, before) in &disk.claims.volumes {
        let now = after.volumes.get(key);
        check("W23", now.is_none_or(|now| now == before), || {
            format!("{key:?} was kept in {before}, and now it is in {now:?}")
        })?;
    }
    Ok(())
}

impl Volumes {
    /// The disk of a slave is empty.
    pub(crate) fn on_disk_lost(&mut self, slave: usize) {
        self.0.remove(&slave);
    }

    /// A task is started, and will write into its volumes. `disk` is what a crash would leave.
    pub(crate) fn on_mounted(
        &mut self,
        slave: usize,
        disk: &Claims,
        resources: &Resources,
        volumes: &[MountedVolume],
    ) -> Result<(), Broken> {
        let of_slave = self.0.entry(slave).or_default();
        let wanted = resources.iter().filter_map(|resource| {
            let id = resource.volume()?.id().to_owned();
            Some((resource.reservations().role()?.clone(), id))
        });
        let wanted: Vec<VolumeKey> = wanted.collect();
        check("W23", wanted.len() == volumes.len(), || {
            format!("{wanted:?} are the task's volumes, and it finds {volumes:?}")
        })?;
        for key in wanted {
            let directory = disk.volumes.get(&key);
            let found = volumes.iter().find(|it| Some(&it.directory) == directory);
            let Some(found) = found else {
                let what =
                    format!("{key:?} is kept in {directory:?}, and the task finds {volumes:?}");
                return Err(Broken { id: "W23", what });
            };
            let directory = found.directory.clone();
            check("W23", !of_slave.wiped.contains(&directory), || {
                format!("{directory} of {key:?} was wiped")
            })?;
            let before = of_slave.written.insert(directory.clone(), key.clone());
            check("W23", before.as_ref().is_none_or(|it| *it == key), || {
                format!("{key:?} finds the data of {before:?} in {directory}")
            })?;
        }
        Ok(())
    }

    /// A slave removes a directory.
    pub(crate) fn on_wiped(
        &mut self,
        slave: usize,
        disk: &Claims,
        directory: &VolumeDirectory,
    ) -> Result<(), Broken> {
        let owner = disk.volumes.iter().find(|(_, it)| *it == directory);
        check("W23", owner.is_none(), || {
            format!("{directory} is wiped, and a crash would find {owner:?} there")
        })?;
        self.0
            .entry(slave)
            .or_default()
            .wiped
            .insert(directory.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> VolumeDirectory {
        serde_json::from_value(name.into()).expect("a name")
    }

    fn disk(volumes: &[(&str, &str)]) -> Claims {
        let volume = |(id, name): &(&str, &str)| {
            let role = "web".parse().expect("a role");
            ((role, (*id).to_owned()), directory(name))
        };
        Claims {
            volumes: volumes.iter().map(volume).collect(),
            ..Claims::default()
        }
    }

    fn mounted(name: &str) -> [MountedVolume; 1] {
        [MountedVolume {
            directory: directory(name),
            container_path: "data".to_owned(),
        }]
    }

    #[test]
    fn a_volume_that_moves_away_from_its_data_is_rejected() {
        let claims = |volumes: &[(&str, &str)]| Record::ClaimsChanged(Box::new(disk(volumes)));
        let mut before = Checkpoint::default();
        before.apply(claims(&[("db", "db.1")]));
        let both = claims(&[("db", "db.1"), ("log", "log.2")]);
        assert_eq!(check_record(&before, &both), Ok(()));
        assert_eq!(check_record(&before, &claims(&[])), Ok(()), "destroyed");
        let moved = check_record(&before, &claims(&[("db", "db.2")]));
        assert_eq!(moved.expect_err("its data is elsewhere").id, "W23");
    }

    #[test]
    fn data_that_is_lost_or_of_another_volume_is_rejected() {
        let mut checker = Volumes::default();
        let of = |id: &str| -> Resources {
            let text = format!("disk(web,)[{id}:data]:8");
            text.parse().expect("well formed")
        };
        let has_db = disk(&[("db", "db.1")]);
        let mut mount = |disk: &Claims, id: &str, name: &str| {
            let result = checker.on_mounted(0, disk, &of(id), &mounted(name));
            result.map_err(|broken| broken.id)
        };
        assert_eq!(mount(&has_db, "db", "db.1"), Ok(()));
        assert_eq!(mount(&has_db, "db", "db.1"), Ok(()), "it finds its data");
        assert_eq!(mount(&has_db, "db", "db.2"), Err("W23"), "elsewhere");
        let taken = disk(&[("log", "db.1")]);
        assert_eq!(mount(&taken, "log", "db.1"), Err("W23"), "data of db");
        let none = checker.on_mounted(0, &has_db, &of("db"), &[]);
        assert_eq!(none.expect_err("no volume").id, "W23");
        let early = checker.on_wiped(0, &has_db, &directory("db.1"));
        assert_eq!(early.expect_err("it exists").id, "W23");
        assert_eq!(checker.on_wiped(0, &disk(&[]), &directory("db.1")), Ok(()));
        let again = checker.on_mounted(0, &has_db, &of("db"), &mounted("db.1"));
        assert_eq!(again.expect_err("it was wiped").id, "W23");
        checker.on_disk_lost(0);
        let fresh = checker.on_mounted(0, &has_db, &of("db"), &mounted("db.1"));
        assert_eq!(fresh, Ok(()));
    }
}
