//! Claims: what was reserved or made a volume at run time, and so is not in the configuration of any
//! slave (semantics D6, D7).
//!
//! What a slave has is what its configuration declares, with its claims in place of the parts that
//! they were made of. The slave keeps its claims; its masters learn them from it.

use super::{ConvertError, DeclareError, Reservation, ReservationKind, Resource, Resources};

/// Why a slave cannot hold these claims.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// More than [`Resources::CLAIMS_MAX`] entries, or than [`Resources::ENTRIES_MAX`] with all else.
    #[error("a slave holds at most {limit} reservations and volumes")]
    TooMany {
        /// The most there may be.
        limit: usize,
    },
    /// Their labels, principals and names take more than [`Resources::CLAIMS_BYTES_MAX`].
    #[error("the labels and names of what a slave has reserved take at most {max} bytes", max = Resources::CLAIMS_BYTES_MAX)]
    TooLong,
    /// All is right by itself, but not together, such as two volumes with one id.
    #[error(transparent)]
    Together(#[from] DeclareError),
}

impl Resource {
    /// Whether it was reserved or made a volume at run time.
    #[must_use]
    pub fn is_claim(&self) -> bool {
        let top = self.reservations().top();
        self.volume().is_some() || top.is_some_and(|top| top.kind() == ReservationKind::Dynamic)
    }

    /// About what its claim takes in a frame, from above.
    fn claim_bytes(&self) -> usize {
        // An amount, lengths and flags; ranges and sets are bounded by what the slave declares.
        const FIXED: usize = 64;
        let stack = self.reservations().as_slice().iter();
        let volume = self.volume().map_or(0, |volume| {
            volume.id().len() + volume.container_path().len()
        });
        FIXED + volume + stack.map(Reservation::bytes).sum::<usize>()
    }
}

impl Reservation {
    /// About what it takes in a frame, from above.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let labels = self.labels().iter();
        let labels = labels.map(|it| 8 + it.key().len() + it.value().map_or(0, str::len));
        let principal = self.principal().map_or(0, str::len);
        16 + self.role().as_str().len() + principal + labels.sum::<usize>()
    }
}

impl Resources {
    /// The most claims that one slave holds: half of [`Resources::ENTRIES_MAX`], so that what is left
    /// of the parts they were made of fits as well.
    pub const CLAIMS_MAX: usize = Self::ENTRIES_MAX / 2;
    /// The most bytes of labels, principals, roles, ids and paths in the claims of one slave: they are
    /// in every offer of it, and offers travel in frames of 4 MiB.
    pub const CLAIMS_BYTES_MAX: usize = 256 * 1_024;

    /// The part that was reserved or made a volume at run time.
    #[must_use]
    pub fn claims(&self) -> Resources {
        self.filter(Resource::is_claim)
    }

    /// The same without volumes and without what was reserved at run time: what a configuration says.
    ///
    /// # Errors
    /// The sum is too large, which cannot be of what one slave has.
    pub fn unclaimed(&self) -> Result<Resources, ConvertError> {
        let mut sum = Resources::new();
        for resource in self {
            let mut plain = resource.clone().without_volume();
            while plain.is_claim() {
                plain = plain
                    .unreserve()
                    .map_err(|source| ConvertError::Resource { source })?;
            }
            sum.checked_add_assign(&plain.into())
                .map_err(|source| ConvertError::SumTooLarge { source })?;
        }
        Ok(sum)
    }

    /// What a slave has that declares this and holds these claims.
    ///
    /// # Errors
    /// What the claims were made of is not declared.
    pub fn with_claims(&self, claims: &Resources) -> Result<Resources, ConvertError> {
        match claims.is_empty() {
            true => Ok(self.clone()),
            false => self.replace(&claims.unclaimed()?, claims),
        }
    }

    /// Checks that one slave can have this, with all its claims.
    ///
    /// # Errors
    /// [`ClaimsError`].
    pub fn check_claims(&self) -> Result<(), ClaimsError> {
        let claims = self.iter().filter(|it| it.is_claim());
        let (count, bytes) = claims.fold((0, 0), |(count, bytes), it| {
            (count + 1, bytes + it.claim_bytes())
        });
        if count > Self::CLAIMS_MAX {
            let limit = Self::CLAIMS_MAX;
            return Err(ClaimsError::TooMany { limit });
        }
        if self.iter().len() > Self::ENTRIES_MAX {
            let limit = Self::ENTRIES_MAX;
            return Err(ClaimsError::TooMany { limit });
        }
        if bytes > Self::CLAIMS_BYTES_MAX {
            return Err(ClaimsError::TooLong);
        }
        Ok(super::declare::check_volumes(self)?)
    }

    /// Checks that the volumes of one task can all be put into its sandbox: none at the same place as
    /// another or inside of it, and none in place of the sandbox itself.
    ///
    /// # Errors
    /// The first path that cannot be.
    pub fn check_volume_paths(&self) -> Result<(), VolumePathsClash> {
        let volumes = self.iter().filter_map(Resource::volume);
        let mut paths: Vec<Vec<&str>> = volumes
            .map(|volume| {
                let parts = volume.container_path().split('/');
                parts.filter(|it| !it.is_empty() && *it != ".").collect()
            })
            .collect();
        paths.sort_unstable();
        let clash = |path: &[&str]| {
            Err(VolumePathsClash {
                path: path.join("/"),
            })
        };
        match paths.first() {
            Some(first) if first.is_empty() => return clash(&["."]),
            _ => {}
        }
        match paths.windows(2).find(|two| two[1].starts_with(&two[0])) {
            Some(two) => clash(&two[1]),
            None => Ok(()),
        }
    }
}

/// Two volumes of one task at one place, or one in place of its sandbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a volume cannot be at `{path}`: the sandbox, or another volume of the task, is there")]
pub struct VolumePathsClash {
    /// Where in the sandbox.
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> Resources {
        text.parse().expect("well formed")
    }

    #[test]
    fn what_is_declared_with_its_claims_is_what_a_slave_has_and_back() {
        let declared = resources("cpus:4;disk:100;disk(web):50;ports:[1-9]");
        let claims = resources(
            "cpus(web,alice):1;disk(web)[db:data]:20;disk(web)(web/ads,):10;ports(web,):[3-4]",
        );
        let total = declared.with_claims(&claims).expect("enough of all");
        assert_eq!(
            total,
            resources(
                "cpus:3;cpus(web,alice):1;disk:100;disk(web):20;disk(web)[db:data]:20;\
                 disk(web)(web/ads,):10;ports:[1-2,5-9];ports(web,):[3-4]"
            )
        );
        assert_eq!(total.claims(), claims);
        assert_eq!(total.unclaimed(), Ok(declared.clone()));
        assert!(resources("cpus:0.5;disk:100").with_claims(&claims).is_err());
        assert_eq!(declared.with_claims(&Resources::new()), Ok(declared));
    }

    #[test]
    fn a_static_reservation_is_no_claim_and_what_lies_on_it_is() {
        let is_claim = |text| resources(text).iter().all(Resource::is_claim);
        assert!(!is_claim("cpus:1") && !is_claim("cpus(web):1"));
        assert!(is_claim("cpus(web,):1") && is_claim("cpus(web)(web/ads,):1"));
        assert!(is_claim("disk(web)[db:data]:1"));
    }

    #[test]
    fn claims_are_bounded_in_number_and_in_bytes() {
        let volumes = |count: usize| {
            let one = |at| format!("disk(web,)[v{at}:data]:1");
            let list: Vec<String> = (0..count).map(one).collect();
            resources(&list.join(";"))
        };
        assert_eq!(volumes(Resources::CLAIMS_MAX).check_claims(), Ok(()));
        let limit = Resources::CLAIMS_MAX;
        assert_eq!(
            volumes(limit + 1).check_claims(),
            Err(ClaimsError::TooMany { limit })
        );
        let long = format!("disk(web,)[{}:{}]:1", "x".repeat(200), "y".repeat(4_000));
        let one = resources(&long);
        assert_eq!(one.check_claims(), Ok(()));
        let mut many = Resources::new();
        for at in 0..70 {
            let next = resources(&long.replace("xxx[", &format!("xx{at}[")));
            let renamed = next.to_string().replacen('x', &format!("{at}-"), 1);
            many.checked_add_assign(&resources(&renamed))
                .expect("small");
        }
        assert_eq!(many.check_claims(), Err(ClaimsError::TooLong));
    }

    #[test]
    fn volumes_of_one_task_lie_beside_each_other() {
        let at = |paths: &[&str]| {
            let one = |(at, path): (usize, &&str)| format!("disk(web,)[v{at}:{path}]:1");
            let list: Vec<String> = paths.iter().enumerate().map(one).collect();
            resources(&list.join(";")).check_volume_paths().is_ok()
        };
        assert!(at(&["a", "b"]) && at(&["a/b", "a/c"]) && at(&["a", "ab"]) && at(&[]));
        assert!(!at(&["a", "./a/"]) && !at(&["a", "a/b"]) && !at(&["."]) && !at(&["b", "./"]));
    }
}
