//! Resources as text: `cpus:4;mem:8192;ports:[31000-32000, 33000-33010];zones:{a,b}`.
//!
//! ```text
//! resources   = [ entry { ";" entry } [ ";" ] ]
//! entry       = name { reservation } [ volume ] [ "{REV}" ] [ "{SHA}" ] ":" value
//! reservation = "(" role ")"                                                  static
//!             | "(" role "," [ principal ] { "," key [ "=" value ] } ")"      dynamic, with labels
//! volume      = "[" id ":" path "]"
//! value       = number | "[" [ n [ "-" n ] { "," n [ "-" n ] } ] "]" | "{" [ word { "," word } ] "}"
//! ```
//! Several reservations lie on top of each other, the lowest first; `(*)` means unreserved. Names,
//! roles, principals and the like are words: letters, digits and `_-./@*+%~`, anything else in
//! double quotes with `\"` and `\\`. White space between the parts does not matter. Everything
//! that can be printed can be read back, with one exception: a sum that no single slave can have
//! ([`Resources::declare`]).

use std::fmt;
use std::str::FromStr;

use super::resource::Parts;
use super::{
    DeclareError, Interval, IntervalError, Ranges, Reservation, ReservationError, Reservations,
    Resource, ResourceError, ResourceName, ResourceNameError, Resources, Scalar, ScalarError, Set,
    SetError, Value, Volume, VolumeError,
};
use crate::labels::{Label, Labels, LabelsError};
use crate::role::{RoleName, RoleNameError};

/// Why a text is not a list of resources. Positions count bytes from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseResourcesError {
    /// Something else stands where only certain things can.
    #[error("expected {expected} at byte {at}, found {piece}")]
    Expected {
        /// Where.
        at: usize,
        /// What is there, in backquotes and shortened, or `the end of the text`.
        piece: String,
        /// What should be.
        expected: &'static str,
    },
    /// It has the right form, but cannot be.
    #[error("{piece} at byte {at} cannot be")]
    Invalid {
        /// Where it begins.
        at: usize,
        /// What is there, in backquotes and shortened.
        piece: String,
        /// Why.
        source: InvalidPiece,
    },
    /// Every entry is right by itself, but not all together.
    #[error("the resources do not go together")]
    Together {
        /// Why.
        source: DeclareError,
    },
    /// Longer than [`Resources::TEXT_BYTES_MAX`].
    #[error("a resource text has at most {max} bytes, this one has {got}", max = Resources::TEXT_BYTES_MAX)]
    TooLong {
        /// Length in bytes.
        got: usize,
    },
}

/// Why a piece of a resource text cannot be; displays as the reason itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub enum InvalidPiece {
    /// The name of a resource.
    Name(#[from] ResourceNameError),
    /// A role.
    Role(#[from] RoleNameError),
    /// A reservation.
    Reservation(#[from] ReservationError),
    /// Labels.
    Labels(#[from] LabelsError),
    /// A volume.
    Volume(#[from] VolumeError),
    /// A number.
    Scalar(#[from] ScalarError),
    /// An interval.
    Interval(#[from] IntervalError),
    /// A set.
    Set(#[from] SetError),
    /// The entry as a whole.
    Resource(#[from] ResourceError),
}

/// A word, quoted if it must be.
pub(super) struct Word<'a>(pub(super) &'a str);

fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || "_-./@*+%~".contains(c)
}

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && self.0.chars().all(is_bare) {
            return f.write_str(self.0);
        }
        write!(
            f,
            "\"{}\"",
            self.0.replace('\\', "\\\\").replace('"', "\\\"")
        )
    }
}

impl fmt::Display for Reservation {
    /// `ads` if static, `ads, bob` if dynamic.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Word(self.role().as_str()))?;
        if self.kind() == super::ReservationKind::Static {
            return Ok(());
        }
        f.write_str(", ")?;
        if let Some(principal) = self.principal() {
            write!(f, "{}", Word(principal))?;
        }
        for label in self.labels().iter() {
            write!(f, ", {}", Word(label.key()))?;
            if let Some(value) = label.value() {
                write!(f, "={}", Word(value))?;
            }
        }
        Ok(())
    }
}

/// All of a resource but its value.
pub(super) struct Head<'a>(pub(super) &'a Resource);

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = self.0;
        write!(f, "{}", resource.name())?;
        for reservation in resource.reservations().as_slice() {
            write!(f, "({reservation})")?;
        }
        if let Some(volume) = resource.volume() {
            write!(
                f,
                "[{}:{}]",
                Word(volume.id()),
                Word(volume.container_path())
            )?;
        }
        if resource.is_revocable() {
            f.write_str("{REV}")?;
        }
        if resource.is_shared() {
            f.write_str("{SHA}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Head(self), self.value())
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, resource) in self.iter().enumerate() {
            let separator = if i == 0 { "" } else { ";" };
            write!(f, "{separator}{resource}")?;
        }
        Ok(())
    }
}

impl Resources {
    /// The longest text that is read, in bytes; a slave with every second port free prints less.
    pub const TEXT_BYTES_MAX: usize = 1_048_576;
}

impl FromStr for Resources {
    type Err = ParseResourcesError;

    fn from_str(text: &str) -> Result<Self, ParseResourcesError> {
        if text.len() > Self::TEXT_BYTES_MAX {
            return Err(ParseResourcesError::TooLong { got: text.len() });
        }
        let mut parser = Parser { text, at: 0 };
        let mut list = Vec::new();
        while !parser.at_end() {
            list.push(parser.entry()?);
            if !parser.at_end() {
                parser.expect(';', "`;` between resources")?;
            }
        }
        Self::declare(list).map_err(|source| ParseResourcesError::Together { source })
    }
}

type Parsed<T> = Result<T, ParseResourcesError>;

struct Parser<'a> {
    text: &'a str,
    /// Where the next character is; always on a character boundary.
    at: usize,
}

impl Parser<'_> {
    fn entry(&mut self) -> Parsed<Resource> {
        let begin = self.skip_space();
        let name = self.word("the name of a resource, such as `cpus`")?;
        let name = ResourceName::new(&name).map_err(|error| self.invalid(begin, error))?;
        let mut stack = Vec::new();
        while self.accept('(') {
            self.reservation(&mut stack)?;
        }
        let reservations =
            Reservations::from_stack(stack).map_err(|error| self.invalid(begin, error))?;
        let volume = if self.accept('[') {
            Some(self.volume()?)
        } else {
            None
        };
        let revocable = self.flag("{REV}");
        let shared = self.flag("{SHA}");
        self.expect(':', "`:` and a value, or a role in parentheses")?;
        let value = self.value()?;
        let parts = Parts {
            name,
            value,
            reservations,
            volume,
            revocable,
            shared,
        };
        Resource::try_from(parts).map_err(|error| self.invalid(begin, error))
    }

    /// What follows an opening parenthesis, up to and with the closing one.
    fn reservation(&mut self, stack: &mut Vec<Reservation>) -> Parsed<()> {
        let begin = self.skip_space();
        let role = self.word("a role, such as `ads`")?;
        if role == "*" && stack.is_empty() && self.accept(')') {
            // As Mesos writes unreserved resources.
            return Ok(());
        }
        let role = RoleName::new(&role).map_err(|error| self.invalid(begin, error))?;
        let reservation = if self.accept(',') {
            let principal = match self.peek() {
                Some(',' | ')') => None,
                _ => Some(self.word("a principal or `)`")?),
            };
            let labels = self.labels()?;
            Reservation::dynamic(role, principal, labels)
        } else {
            Reservation::fixed(role)
        };
        stack.push(reservation.map_err(|error| self.invalid(begin, error))?);
        self.expect(')', "`)` after the reservation, or `,` and a principal")
    }

    fn labels(&mut self) -> Parsed<Labels> {
        let begin = self.skip_space();
        let mut labels = Vec::new();
        while self.accept(',') {
            let key = self.word("the key of a label")?;
            let value = if self.accept('=') {
                Some(self.word("the value of a label")?)
            } else {
                None
            };
            labels.push(Label::new(key, value).map_err(|error| self.invalid(begin, error))?);
        }
        Labels::from_list(labels).map_err(|error| self.invalid(begin, error))
    }

    /// What follows an opening bracket, up to and with the closing one.
    fn volume(&mut self) -> Parsed<Volume> {
        let begin = self.skip_space();
        let id = self.word("the id of a volume")?;
        self.expect(':', "`:` and the path of the volume")?;
        let path = self.word("the path of a volume")?;
        self.expect(']', "`]` after the volume")?;
        Volume::new(id, path).map_err(|error| self.invalid(begin, error))
    }

    fn value(&mut self) -> Parsed<Value> {
        if self.accept('[') {
            self.ranges().map(Value::Ranges)
        } else if self.accept('{') {
            self.set().map(Value::Set)
        } else {
            self.scalar().map(Value::Scalar)
        }
    }

    fn scalar(&mut self) -> Parsed<Scalar> {
        let begin = self.skip_space();
        let text = self.bare();
        match text.parse() {
            Ok(amount) => Ok(amount),
            Err(ScalarError::NotANumber) => {
                self.at = begin;
                Err(self.expected(
                    "a number such as 4 or 1.5, ranges such as [1-9], or a set such as {a,b}",
                ))
            }
            Err(error) => Err(self.invalid(begin, error)),
        }
    }

    fn ranges(&mut self) -> Parsed<Ranges> {
        let mut intervals = Vec::new();
        if self.accept(']') {
            return Ok(Ranges::new());
        }
        loop {
            // Bounded by the length of the text.
            let at = self.skip_space();
            let begin = self.number()?;
            let end = if self.accept('-') {
                self.number()?
            } else {
                begin
            };
            intervals.push(Interval::new(begin, end).map_err(|error| self.invalid(at, error))?);
            if self.accept(']') {
                return Ok(Ranges::from_intervals(intervals));
            }
            self.expect(',', "`-`, `,` or `]` in the ranges")?;
        }
    }

    fn set(&mut self) -> Parsed<Set> {
        let begin = self.skip_space();
        let mut items = Vec::new();
        if self.accept('}') {
            return Ok(Set::new());
        }
        loop {
            items.push(self.word("a word in the set")?);
            if self.accept('}') {
                return Set::from_items(items).map_err(|error| self.invalid(begin, error));
            }
            self.expect(',', "`,` or `}` in the set")?;
        }
    }

    /// A whole number; the only thing where `-` separates.
    fn number(&mut self) -> Parsed<u64> {
        let begin = self.skip_space();
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        match self.rest()[..digits].parse() {
            Ok(number) => {
                self.at += digits;
                Ok(number)
            }
            Err(_) => {
                self.at = begin;
                Err(self.expected("a whole number up to 18446744073709551615"))
            }
        }
    }

    /// A word, bare or quoted. `expected` says what it would be.
    fn word(&mut self, expected: &'static str) -> Parsed<String> {
        let begin = self.skip_space();
        if !self.accept('"') {
            let word = self.bare().to_owned();
            return if word.is_empty() {
                Err(self.expected(expected))
            } else {
                Ok(word)
            };
        }
        let mut word = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    return Ok(word);
                }
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => word.push(escaped),
                    _ => {
                        self.at += offset;
                        return Err(self.expected("`\\\"` or `\\\\`, the only escapes"));
                    }
                },
                _ => word.push(c),
            }
        }
        self.at = begin;
        Err(self.expected("a closing `\"` somewhere after this one"))
    }

    fn bare(&mut self) -> &str {
        let begin = self.at;
        let rest = self.rest();
        self.at += rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
        &self.text[begin..self.at]
    }

    fn flag(&mut self, flag: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(flag);
        if found {
            self.at += flag.len();
        }
        found
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// Skips white space and tells where the next piece begins.
    fn skip_space(&mut self) -> usize {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.at
    }

    fn at_end(&mut self) -> bool {
        self.skip_space() == self.text.len()
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.rest().chars().next()
    }

    fn accept(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn expect(&mut self, c: char, expected: &'static str) -> Parsed<()> {
        if self.accept(c) {
            Ok(())
        } else {
            Err(self.expected(expected))
        }
    }

    /// The error that something else stands here.
    fn expected(&self, expected: &'static str) -> ParseResourcesError {
        // A word, or else the one character that is in the way.
        let rest = self.rest();
        let word = rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
        let end = if word > 0 {
            word
        } else {
            rest.chars().next().map_or(0, char::len_utf8)
        };
        ParseResourcesError::Expected {
            at: self.at,
            piece: shorten(&rest[..end]),
            expected,
        }
    }

    /// The error that what stands from `begin` to here cannot be.
    fn invalid(&self, begin: usize, why: impl Into<InvalidPiece>) -> ParseResourcesError {
        let piece = shorten(self.text[begin..self.at].trim_end());
        ParseResourcesError::Invalid {
            at: begin,
            piece,
            source: why.into(),
        }
    }
}

/// A piece of the text for an error: quoted, and no longer than fits a line.
fn shorten(piece: &str) -> String {
    const CHARS_MAX: usize = 40;
    match piece.char_indices().nth(CHARS_MAX) {
        _ if piece.is_empty() => "the end of the text".into(),
        Some((cut, _)) => format!("`{}…`", &piece[..cut]),
        None => format!("`{piece}`"),
    }
}
