//! W14: once a slave or a framework has been welcomed by the leader of a term, it does nothing more that
//! a master of an earlier term says; in its next lives neither, as far as its disk tells.

use std::collections::BTreeMap;

use meros_proto::ids::Epoch;

use super::{Broken, check};
use crate::plan::Client;

/// The highest term that has welcomed each client, as far as it can know.
#[derive(Debug, Default)]
pub(crate) struct OldTerms(BTreeMap<Client, Epoch>);

impl OldTerms {
    /// The client begins a new life, in which it knows of the term that it has on its disk.
    pub(crate) fn on_life(&mut self, client: Client, durable: Epoch) {
        self.0.insert(client, durable);
    }

    /// The highest term that has welcomed it.
    pub(crate) fn highest(&self, client: Client) -> Epoch {
        self.0.get(&client).copied().unwrap_or_default()
    }

    /// The client has heard a message of the master that leads `term`; `welcomed` if it is a member
    /// now by that message, `obeyed` if it did anything about it that concerns tasks or offers.
    pub(crate) fn on_heard(
        &mut self,
        client: Client,
        term: Epoch,
        welcomed: bool,
        obeyed: bool,
    ) -> Result<(), Broken> {
        let highest = self.highest(client);
        let is_old = term < highest;
        check("W14", !(is_old && (welcomed || obeyed)), || {
            format!("{client:?} obeys the master of term {term} after that of {highest}")
        })?;
        if welcomed {
            self.0.insert(client, term);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obeying_a_deposed_master_is_rejected_within_one_life() {
        let client = Client::Slave(0);
        let mut checker = OldTerms::default();
        assert_eq!(checker.on_heard(client, Epoch(2), true, false), Ok(()));
        assert_eq!(checker.on_heard(client, Epoch(2), false, true), Ok(()));
        assert_eq!(checker.on_heard(client, Epoch(1), false, false), Ok(()));
        for (welcomed, obeyed) in [(true, false), (false, true)] {
            let broken = checker.on_heard(client, Epoch(1), welcomed, obeyed);
            assert_eq!(broken.expect_err("deposed").id, "W14");
        }
        checker.on_life(client, Epoch(1));
        assert_eq!(checker.on_heard(client, Epoch(1), true, false), Ok(()));
    }
}
