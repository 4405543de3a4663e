//! One configuration from three places: a flag or variable of the environment wins over the TOML
//! file, the file over the default. Unknown keys are refused.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::exit::CliError;

/// Reads a TOML file.
///
/// # Errors
/// It cannot be read, is not TOML, or has a key or value that does not belong there; the message
/// shows the place.
pub(crate) fn read_file<T: DeserializeOwned>(path: &Path) -> Result<T, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        CliError::usage(format!(
            "cannot read the configuration {}: {error}",
            path.display()
        ))
    })?;
    parse(&text)
        .map_err(|error| CliError::usage(format!("configuration {}: {error}", path.display())))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, toml::de::Error> {
    toml::from_str(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        port: u16,
    }

    #[test]
    fn an_unknown_key_is_refused_and_its_line_shown() {
        let error = parse::<Sample>("port = 1\nprot = 2\n")
            .expect_err("prot is a typo")
            .to_string();
        assert!(
            error.contains("line 2") && error.contains("prot"),
            "{error}"
        );
        assert_eq!(parse::<Sample>("port = 1").expect("well formed").port, 1);
    }
}
