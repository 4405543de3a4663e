//! What runs in an image, as whom and with which variables: what the image says, what its task says, and which counts.
//!
//! | task's command | runs |
//! |---|---|
//! | none, an empty list | entrypoint and arguments of the image |
//! | a list | the image's entrypoint with that list as arguments; the list if there is no entrypoint |
//! | a list, with an entrypoint of the task's | that with the list as arguments |
//! | a shell line | `/bin/sh -c` of the image, and neither its entrypoint nor its arguments |
//!
//! Variables: those of the slave (`MEROS_…`) over those of the image, and those of the task over all. User: the
//! command's, else the image's, else the framework's. The working directory is the image's, `/` if it has none.

use std::collections::BTreeMap;
use std::path::PathBuf;

use meros_proto::image::Image;
use meros_proto::task::{Command, Execute};
use meros_shim::Rootfs;
use nix::unistd::User;

use super::Prepared;
use super::accounts::{self, Found};
use super::error::{Failure, ImageError};
use super::manifest::ImageConfig;
use crate::container::{Account, ContainerSpec, DEFAULT_PATH, ImageRoot, TaskCommand};

/// What a task has to say of how it runs in its image.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    image: Image,
    command: Command,
    /// Of its framework.
    user: Option<String>,
}

impl Wanted {
    /// None if it has no image.
    pub(crate) fn of(command: Option<&Command>, user: Option<&String>) -> Option<Self> {
        let command = command?;
        Some(Self {
            image: command.image.clone()?,
            command: command.clone(),
            user: user.cloned(),
        })
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Makes a container in its slave's tree one in that of an image. Blocks.
    pub(crate) fn furnish(
        &self,
        spec: &mut ContainerSpec,
        prepared: &Prepared,
    ) -> Result<(), ImageError> {
        let wrong = |why| ImageError {
            reference: prepared.name.clone(),
            why,
        };
        let config = &prepared.image.config;
        spec.command = command(&self.image, &self.command.execute, config).map_err(wrong)?;
        let Found { account, home } = self.account(prepared).map_err(wrong)?;
        let (own, base) = (&self.command.environment, std::mem::take(&mut spec.env));
        spec.env = environment(config, base, own, &home);
        let sandbox = spec.sandbox.display().to_string();
        spec.env
            .entry("MESOS_SANDBOX".to_owned())
            .or_insert(sandbox);
        spec.env
            .entry("MEROS_IMAGE".to_owned())
            .or_insert_with(|| prepared.name.clone());
        spec.user = None;
        spec.image = Some(ImageRoot {
            rootfs: Rootfs {
                layers: prepared.layers.clone(),
                workdir: PathBuf::from(config.working_dir()),
            },
            account,
        });
        Ok(())
    }

    fn account(&self, prepared: &Prepared) -> Result<Found, Failure> {
        let find = |user: &str| accounts::find(&prepared.layers, user);
        let of_image = prepared.image.config.user.as_ref();
        let of_image = of_image.filter(|user| !user.is_empty());
        if let Some(user) = self.command.user.as_ref().or(of_image) {
            return find(user);
        }
        let Some(user) = &self.user else {
            return find("0");
        };
        // A user of the cluster need not be one of the image.
        find(user).or_else(|unknown| {
            let known = User::from_name(user).ok().flatten().ok_or(unknown)?;
            let (uid, gid) = (known.uid.as_raw(), known.gid.as_raw());
            Ok(Found {
                account: Account {
                    uid,
                    gid,
                    groups: vec![gid],
                },
                home: "/".to_owned(),
            })
        })
    }
}

fn command(image: &Image, execute: &Execute, config: &ImageConfig) -> Result<TaskCommand, Failure> {
    let arguments = match execute {
        Execute::Shell(line) => return Ok(TaskCommand::Shell(line.clone())),
        Execute::Argv(arguments) => arguments.as_slice(),
    };
    let argv: Vec<String> = match &image.entrypoint {
        Some(program) => [std::slice::from_ref(program), arguments].concat(),
        None if arguments.is_empty() => [config.entrypoint(), config.cmd()].concat(),
        None => [config.entrypoint(), arguments].concat(),
    };
    match argv.first().is_none_or(String::is_empty) {
        true => Err(Failure::NoCommand),
        false => Ok(TaskCommand::Argv(argv)),
    }
}

/// `base` is what a task has without an image, its own variables included.
fn environment(
    config: &ImageConfig,
    base: BTreeMap<String, String>,
    own: &BTreeMap<String, String>,
    home: &str,
) -> BTreeMap<String, String> {
    // Paths of the slave's own tree.
    let is_elsewhere = |name: &str| ["PATH", "HOME"].contains(&name);
    let mut all: BTreeMap<String, String> = [
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOME".to_owned(), home.to_owned()),
    ]
    .into();
    all.extend(config.env());
    all.extend(base.into_iter().filter(|(name, _)| !is_elsewhere(name)));
    all.extend(own.clone());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ImageConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_runs_is_what_docker_would_run() {
        let both = config(r#"{"Entrypoint":["/e","-x"],"Cmd":["c"]}"#);
        let only_cmd = config(r#"{"Entrypoint":null,"Cmd":["c","d"]}"#);
        let plain = Image::new("a");
        let other = Image::new("a").entrypoint("/o");
        let words = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        for (image, config, arguments, expected) in [
            (&plain, &both, &[][..], &["/e", "-x", "c"][..]),
            (&plain, &both, &["1", "2"], &["/e", "-x", "1", "2"]),
            (&plain, &only_cmd, &[], &["c", "d"]),
            (&plain, &only_cmd, &["1"], &["1"]),
            (&other, &both, &[], &["/o"]),
            (&other, &both, &["1"], &["/o", "1"]),
        ] {
            let execute = Execute::Argv(words(arguments));
            let found = command(image, &execute, config).unwrap();
            assert_eq!(found, TaskCommand::Argv(words(expected)));
        }
        let shell = command(&plain, &Execute::Shell("x".to_owned()), &both).unwrap();
        assert_eq!(shell, TaskCommand::Shell("x".to_owned()));
        let nothing = command(&plain, &Execute::Argv(Vec::new()), &config("{}"));
        assert_eq!(nothing.unwrap_err().code(), "image_no_command");
    }

    #[test]
    fn the_task_counts_before_the_slave_and_the_slave_before_the_image() {
        let config = config(r#"{"Env":["PATH=/i","A=image","MEROS_ROLE=x","broken","=x","E="]}"#);
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            let owned = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            owned.collect::<BTreeMap<_, _>>()
        };
        let own = map(&[("A", "task")]);
        let base = map(&[
            ("PATH", "/slave"),
            ("HOME", "/sandbox"),
            ("MEROS_ROLE", "r"),
            ("A", "task"),
        ]);
        let found = environment(&config, base, &own, "/root");
        let expected = [
            ("A", "task"),
            ("E", ""),
            ("HOME", "/root"),
            ("MEROS_ROLE", "r"),
            ("PATH", "/i"),
        ];
        assert_eq!(found, map(&expected));
        assert_eq!(config.working_dir(), "/");
    }
}
