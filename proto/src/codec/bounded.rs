//! Reading a payload with bounds on what it can make us do.
//!
//! bincode trusts lengths inside the payload and recurses as deep as the type allows. The wrapper
//! here stands between bincode and serde and refuses, before it happens:
//! - nesting beyond [`DEPTH_MAX`], so that the stack is safe even for a recursive type;
//! - elements beyond a memory budget in proportion to the payload: an element can be far larger in
//!   memory than on the wire (an empty option is one byte), and one without any bytes could be
//!   repeated for ever;
//! - allocating ahead for more elements than there are bytes.
//!
//! Text and byte strings are borrowed from the payload first, so no length in it is allocated before
//! that many bytes are known to be there.

use std::{cell::Cell, fmt, marker::PhantomData};

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::{DecodeError, FORMAT};

/// Levels of nesting (structs, variants, options, sequences). Our deepest message has about 20; a
/// level takes at most a few KiB of stack even in debug builds, and threads have 2 MiB.
pub(super) const DEPTH_MAX: u16 = 96;

/// Memory granted to every payload, bytes: small messages need no arithmetic.
const MEMORY_BASE: usize = 64 * 1024;

/// Memory granted for each byte of payload. Honest lists take up to about 40 times their bytes
/// (structs that are mostly empty options).
const MEMORY_PER_BYTE: usize = 64;

/// Characters of a malformed message's description.
const DETAIL_CHARS_MAX: usize = 200;

/// Decodes exactly one `T` from all of `payload`.
pub(super) fn decode_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    let budget = Budget {
        memory: Cell::new(MEMORY_BASE + MEMORY_PER_BYTE * payload.len()),
        elements_hint_max: payload.len(),
        overrun: Cell::new(None),
    };
    let root = Bounded {
        inner: PhantomData::<T>,
        budget: &budget,
        depth: 0,
    };
    match bincode::serde::seed_decode_from_slice(root, payload, FORMAT) {
        Ok((message, used)) if used == payload.len() => Ok(message),
        Ok((_, used)) => Err(DecodeError::Trailing {
            bytes: payload.len() - used,
        }),
        Err(error) => Err(budget.overrun.take().unwrap_or_else(|| describe(error))),
    }
}

fn describe(error: bincode::error::DecodeError) -> DecodeError {
    use bincode::error::DecodeError as Cause;
    let detail = match error {
        Cause::UnexpectedEnd { .. } => return DecodeError::Truncated,
        Cause::Utf8 { .. } => "text is not UTF-8".into(),
        Cause::UnexpectedVariant {
            type_name, found, ..
        } => {
            format!("{type_name} has no variant {found}")
        }
        Cause::OtherString(text) => text.chars().take(DETAIL_CHARS_MAX).collect(),
        other => other.to_string().chars().take(DETAIL_CHARS_MAX).collect(),
    };
    DecodeError::Malformed { detail }
}

/// What one payload may still use, shared by all levels of it.
struct Budget {
    memory: Cell<usize>,
    elements_hint_max: usize,
    /// Set when a bound of ours stopped the decoding; bincode's error can only carry text.
    overrun: Cell<Option<DecodeError>>,
}

impl Budget {
    /// Pays for one element of a sequence or map.
    fn charge<V, E: serde::de::Error>(&self) -> Result<(), E> {
        // At least one, so that elements without a size are bounded too.
        let left = self.memory.get().checked_sub(size_of::<V>().max(1));
        self.memory
            .set(left.ok_or_else(|| self.stop(DecodeError::TooLarge))?);
        Ok(())
    }

    fn stop<E: serde::de::Error>(&self, why: DecodeError) -> E {
        let error = E::custom(&why);
        self.overrun.set(Some(why));
        error
    }
}

/// A serde object of bincode's (deserializer, seed, visitor, access) with the budget attached.
struct Bounded<'b, T> {
    inner: T,
    budget: &'b Budget,
    depth: u16,
}

impl<'b, T> Bounded<'b, T> {
    fn wrap<U>(&self, inner: U) -> Bounded<'b, U> {
        Bounded {
            inner,
            budget: self.budget,
            depth: self.depth,
        }
    }

    fn deeper<U, E: serde::de::Error>(&self, inner: U) -> Result<Bounded<'b, U>, E> {
        if self.depth >= DEPTH_MAX {
            return Err(self.budget.stop(DecodeError::TooDeep));
        }
        Ok(Bounded {
            inner,
            budget: self.budget,
            depth: self.depth + 1,
        })
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        let wrapped = self.wrap(deserializer);
        self.inner.deserialize(wrapped)
    }
}

macro_rules! forward {
    ($($method:ident $(as $target:ident)?),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            forward!(@call self.inner, visitor, $method $(, $target)?)
        })*
    };
    (@call $inner:expr, $visitor:ident, $method:ident) => { $inner.$method($visitor) };
    (@call $inner:expr, $visitor:ident, $method:ident, $target:ident) => { $inner.$target($visitor) };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    forward!(
        deserialize_any,
        deserialize_bool,
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_i128,
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
        deserialize_u128,
        deserialize_f32,
        deserialize_f64,
        deserialize_char,
        deserialize_unit,
        deserialize_identifier,
        deserialize_ignored_any,
        deserialize_str,
        deserialize_bytes,
        // The owned forms allocate what the length says before looking for the bytes.
        deserialize_string as deserialize_str,
        deserialize_byte_buf as deserialize_bytes,
    );

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.deeper(visitor)?;
        self.inner.deserialize_option(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.deeper(visitor)?;
        self.inner.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.deeper(Repeated(visitor))?;
        self.inner.deserialize_seq(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.deeper(visitor)?;
        self.inner.deserialize_tuple(length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.deeper(visitor)?;
        self.inner.deserialize_tuple_struct(name, length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.deeper(visitor)?;
        self.inner.deserialize_map(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.deeper(visitor)?;
        self.inner.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.deeper(visitor)?;
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A visitor of a composite value: hands out wrapped accesses, and nothing else can reach it.
impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        let deserializer = self.wrap(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.wrap(access);
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.wrap(access);
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.wrap(access);
        self.inner.visit_enum(access)
    }
}

/// Marks the visitor, then the access, of a sequence whose length comes from the payload. Tuples and
/// structs have theirs from the type and are paid for by the element that holds them.
struct Repeated<T>(T);

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, Repeated<V>> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.0.expecting(formatter)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.wrap(Repeated(access));
        self.inner.0.visit_seq(access)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, Repeated<A>> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.budget.charge::<S::Value, A::Error>()?;
        let seed = self.wrap(seed);
        self.inner.0.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner
            .0
            .size_hint()
            .map(|hint| hint.min(self.budget.elements_hint_max))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let seed = self.wrap(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.budget.charge::<S::Value, A::Error>()?;
        let seed = self.wrap(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.budget.charge::<S::Value, A::Error>()?;
        let seed = self.wrap(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner
            .size_hint()
            .map(|hint| hint.min(self.budget.elements_hint_max))
    }
}

impl<'b, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'b, A> {
    type Error = A::Error;
    type Variant = Bounded<'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let Self {
            inner,
            budget,
            depth,
        } = self;
        // The seed reads only the variant's index, which cannot nest.
        let (value, variant) = inner.variant_seed(seed)?;
        Ok((
            value,
            Bounded {
                inner: variant,
                budget,
                depth,
            },
        ))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.wrap(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.wrap(visitor);
        self.inner.tuple_variant(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.wrap(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
