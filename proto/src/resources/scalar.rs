//! Amounts in fixed point: whole thousandths, never negative, never approximate.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// An amount of something divisible, in thousandths of its unit (semantics: D8).
///
/// 0 to [`Scalar::MAX`]. The unit depends on the resource: cores for cpus, MiB for mem and disk.
/// In binary formats a whole number of thousandths; in readable formats a number in units, such as
/// `1.5`, which is rounded to the nearest thousandth when read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scalar(i64);

/// Why a number is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScalarError {
    /// Not a number: NaN, infinite, or text other than digits with at most one decimal point.
    #[error("an amount is a finite decimal number such as 4 or 1.5")]
    NotANumber,
    /// Below zero.
    #[error("an amount is not negative")]
    Negative,
    /// Above [`Scalar::MAX`].
    #[error("an amount is at most {}", Scalar::MAX)]
    TooLarge,
}

const PER_UNIT: i64 = 1_000;

impl Scalar {
    /// Nothing.
    pub const ZERO: Scalar = Scalar(0);
    /// One unit.
    pub const ONE: Scalar = Scalar(PER_UNIT);
    /// The largest amount that can be represented. Only sums over a cluster come near it.
    pub const MAX: Scalar = Scalar(i64::MAX);
    /// The most that one slave, offer or task may declare of one resource: 90 billion units, which
    /// for memory and disk is some 94 PB. Sums over 100,000 slaves stay below [`Scalar::MAX`].
    pub const DECLARED_MAX: Scalar = Scalar(90_000_000_000 * PER_UNIT);

    /// `units` whole units.
    #[must_use]
    pub const fn whole(units: u32) -> Self {
        // Lossless, and `From` is not const. The product is far below the maximum.
        Self(units as i64 * PER_UNIT)
    }

    /// So many thousandths, or `None` if negative.
    #[must_use]
    pub const fn from_thousandths(thousandths: i64) -> Option<Self> {
        if thousandths < 0 {
            None
        } else {
            Some(Self(thousandths))
        }
    }

    /// The amount in thousandths of the unit; never negative.
    #[must_use]
    pub const fn thousandths(self) -> i64 {
        self.0
    }

    /// Rounds `units` to the nearest thousandth, halves away from zero.
    ///
    /// # Errors
    /// NaN and infinities, then anything below zero (also what would round to it), then too large.
    pub fn from_f64(units: f64) -> Result<Self, ScalarError> {
        if !units.is_finite() {
            return Err(ScalarError::NotANumber);
        }
        if units < 0.0 {
            return Err(ScalarError::Negative);
        }
        let thousandths = (units * PER_UNIT as f64).round();
        // As a float i64::MAX is 2^63, the first value that does not fit.
        if thousandths >= i64::MAX as f64 {
            return Err(ScalarError::TooLarge);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole, and below 2^63 by the check above"
        )]
        Ok(Self(thousandths as i64))
    }

    /// The amount in units, for shares and displays. Exact to a thousandth below 4.5e12 units.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / PER_UNIT as f64
    }

    /// Whether this is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether this is a whole number of units.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.0 % PER_UNIT == 0
    }

    /// The sum, or `None` above [`Scalar::MAX`].
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, or `None` below zero.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        // Both are in 0..=i64::MAX, so the difference cannot overflow.
        Self::from_thousandths(self.0 - other.0)
    }

    /// `times` this amount, or `None` above [`Scalar::MAX`].
    #[must_use]
    pub const fn checked_mul(self, times: u32) -> Option<Self> {
        match self.0.checked_mul(times as i64) {
            Some(product) => Some(Self(product)),
            None => None,
        }
    }

    /// The sum, at most [`Scalar::MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        match self.checked_sub(other) {
            Some(difference) => difference,
            None => Self::ZERO,
        }
    }
}

const _: () = assert!(Scalar::DECLARED_MAX.0.checked_mul(100_000).is_some());

impl fmt::Display for Scalar {
    /// The shortest exact decimal: `4`, `1.5`, `0.001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, thousandths) = (self.0 / PER_UNIT, self.0 % PER_UNIT);
        match thousandths {
            0 => write!(f, "{units}"),
            t if t % 100 == 0 => write!(f, "{units}.{}", t / 100),
            t if t % 10 == 0 => write!(f, "{units}.{:02}", t / 10),
            t => write!(f, "{units}.{t:03}"),
        }
    }
}

impl FromStr for Scalar {
    type Err = ScalarError;

    /// Digits, optionally followed by a point and more digits; rounds to the nearest thousandth.
    fn from_str(text: &str) -> Result<Self, ScalarError> {
        let (units, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if let Some(number) = text.strip_prefix('-')
            && number.parse::<Scalar>().is_ok()
        {
            return Err(ScalarError::Negative);
        }
        if !all_digits(units) || !all_digits(fraction) {
            return Err(ScalarError::NotANumber);
        }
        // Only digits are left, so failing to parse can only mean that there are too many.
        let units: i64 = units.parse().map_err(|_| ScalarError::TooLarge)?;
        let digit = |place: usize| {
            fraction
                .as_bytes()
                .get(place)
                .map_or(0, |b| i64::from(b - b'0'))
        };
        let rounded_up = i64::from(digit(3) >= 5);
        let thousandths = digit(0) * 100 + digit(1) * 10 + digit(2) + rounded_up;
        units
            .checked_mul(PER_UNIT)
            .and_then(|whole| whole.checked_add(thousandths))
            .map(Self)
            .ok_or(ScalarError::TooLarge)
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            serializer.serialize_u64(self.0.unsigned_abs())
        } else if self.is_whole() {
            // `4` rather than `4.0`, and exact however large.
            serializer.serialize_i64(self.0 / PER_UNIT)
        } else {
            serializer.serialize_f64(self.as_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(UnitsVisitor);
        }
        let thousandths = u64::deserialize(deserializer)?;
        i64::try_from(thousandths)
            .map(Self)
            .map_err(|_| D::Error::custom(ScalarError::TooLarge))
    }
}

/// Reads an amount in units from a readable format.
pub(super) struct UnitsVisitor;

impl Visitor<'_> for UnitsVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number that is not negative")
    }

    fn visit_u64<E: Error>(self, units: u64) -> Result<Scalar, E> {
        i64::try_from(units)
            .ok()
            .and_then(|units| units.checked_mul(PER_UNIT))
            .map(Scalar)
            .ok_or_else(|| E::custom(ScalarError::TooLarge))
    }

    fn visit_i64<E: Error>(self, units: i64) -> Result<Scalar, E> {
        let units = u64::try_from(units).map_err(|_| E::custom(ScalarError::Negative))?;
        self.visit_u64(units)
    }

    fn visit_f64<E: Error>(self, units: f64) -> Result<Scalar, E> {
        Scalar::from_f64(units).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scalar(text: &str) -> Scalar {
        text.parse().unwrap()
    }

    #[test]
    fn text_is_read_and_printed_exactly() {
        for (text, thousandths, printed) in [
            ("0", 0, "0"),
            ("4", 4_000, "4"),
            ("1.5", 1_500, "1.5"),
            ("1.25", 1_250, "1.25"),
            ("0.001", 1, "0.001"),
            ("007.10", 7_100, "7.1"),
            ("0.0005", 1, "0.001"),
            ("0.00049999", 0, "0"),
            ("1.9995", 2_000, "2"),
            ("9223372036854775.807", i64::MAX, "9223372036854775.807"),
        ] {
            assert_eq!(scalar(text).thousandths(), thousandths, "{text}");
            assert_eq!(scalar(text).to_string(), printed);
        }
    }

    #[test]
    fn text_that_is_no_amount_is_refused() {
        for text in [
            "", ".", "1.", ".5", "1.2.3", "1e3", "+1", " 1", "NaN", "inf", "0x1", "-", "-x", "١",
        ] {
            assert_eq!(
                text.parse::<Scalar>(),
                Err(ScalarError::NotANumber),
                "{text:?}"
            );
        }
        assert_eq!("-1.5".parse::<Scalar>(), Err(ScalarError::Negative));
        for text in [
            "9223372036854775.808",
            "9223372036854775808",
            "99999999999999999999999",
        ] {
            assert_eq!(text.parse::<Scalar>(), Err(ScalarError::TooLarge), "{text}");
        }
    }

    #[test]
    fn floats_are_rounded_to_the_nearest_thousandth_or_refused() {
        assert_eq!(Scalar::from_f64(0.1 + 0.2), Ok(scalar("0.3")));
        assert_eq!(Scalar::from_f64(0.0005), Ok(scalar("0.001")));
        assert_eq!(Scalar::from_f64(-0.0), Ok(Scalar::ZERO));
        assert_eq!(Scalar::from_f64(f64::NAN), Err(ScalarError::NotANumber));
        assert_eq!(
            Scalar::from_f64(f64::INFINITY),
            Err(ScalarError::NotANumber)
        );
        assert_eq!(Scalar::from_f64(-1e-9), Err(ScalarError::Negative));
        assert_eq!(Scalar::from_f64(1e16), Err(ScalarError::TooLarge));
        assert_eq!(Scalar::from_f64(f64::MAX), Err(ScalarError::TooLarge));
    }

    #[test]
    fn json_shows_units_and_refuses_what_is_no_amount() {
        assert_eq!(serde_json::to_string(&scalar("4")).unwrap(), "4");
        assert_eq!(serde_json::to_string(&scalar("1.5")).unwrap(), "1.5");
        assert_eq!(serde_json::to_string(&scalar("0.1")).unwrap(), "0.1");
        for bad in [
            "-1",
            "-0.5",
            "1e300",
            "18446744073709551615",
            "\"4\"",
            "null",
            "[1]",
        ] {
            assert!(serde_json::from_str::<Scalar>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(thousandths in 0..=i64::MAX) {
            let amount = Scalar(thousandths);
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
        }

        #[test]
        fn what_was_added_can_be_taken_back(a in 0..=i64::MAX, b in 0..=i64::MAX) {
            let (a, b) = (Scalar(a), Scalar(b));
            if let Some(sum) = a.checked_add(b) {
                prop_assert_eq!(sum.checked_sub(b), Some(a));
            }
            prop_assert_eq!(a.checked_sub(b).is_some(), a >= b);
            prop_assert!(a.saturating_sub(b) >= Scalar::ZERO);
        }

        #[test]
        fn json_keeps_every_declarable_amount(thousandths in 0..=Scalar::DECLARED_MAX.0) {
            let amount = Scalar(thousandths);
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<Scalar>(&json).unwrap(), amount);
        }
    }
}
