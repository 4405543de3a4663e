//! What of a v1 message cannot be done.

/// A field that Meros cannot honour, and says so instead of leaving it out silently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The field breaks a rule of the protocol.
    #[error("{field} is not valid: {why}")]
    Invalid {
        /// Its path, such as `executor.command.uris`.
        field: String,
        /// The rule.
        why: String,
    },
    /// Meros has nothing like it.
    #[error("{field} is not supported by Meros: {why}")]
    Unsupported {
        /// Its path.
        field: String,
        /// What to do instead.
        why: &'static str,
    },
}

impl Refused {
    pub(crate) fn invalid(field: impl Into<String>, why: impl ToString) -> Self {
        Self::Invalid {
            field: field.into(),
            why: why.to_string(),
        }
    }

    pub(crate) fn unsupported(field: impl Into<String>, why: &'static str) -> Self {
        Self::Unsupported {
            field: field.into(),
            why,
        }
    }

    /// The stable code, for tools.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::Unsupported { .. } => "unsupported",
        }
    }
}

/// Refuses a field that is there.
pub(crate) fn absent(there: bool, field: &str, why: &'static str) -> Result<(), Refused> {
    match there {
        true => Err(Refused::unsupported(field, why)),
        false => Ok(()),
    }
}
