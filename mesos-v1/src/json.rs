//! What real clients send as JSON, made into what the protobuf mapping says (semantics R7), and what
//! they read (semantics R1).

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

/// Takes out nulls, fields that are not known and names of enums that are not known, and makes
/// booleans of their words.
pub(crate) fn tidy(value: &mut Value, message: &MessageDescriptor) {
    let Value::Object(fields) = value else { return };
    fields.retain(|name, value| {
        let field = message
            .get_field_by_name(name)
            .or_else(|| message.get_field_by_json_name(name));
        field.is_some_and(|field| keep(value, &field))
    });
}

/// Tidies what a field has; false if that is nothing.
fn keep(value: &mut Value, field: &FieldDescriptor) -> bool {
    if field.is_map() {
        let Value::Object(entries) = value else {
            return !value.is_null();
        };
        let Kind::Message(entry) = field.kind() else {
            return true;
        };
        let kind = entry.map_entry_value_field().kind();
        entries.retain(|_, value| keep_one(value, &kind));
        return true;
    }
    let kind = field.kind();
    match value {
        Value::Array(list) if field.is_list() => {
            list.retain_mut(|value| keep_one(value, &kind));
            true
        }
        _ => keep_one(value, &kind),
    }
}

fn keep_one(value: &mut Value, kind: &Kind) -> bool {
    match (&mut *value, kind) {
        (Value::Null, _) => return false,
        (_, Kind::Message(message)) => tidy(value, message),
        (Value::String(name), Kind::Enum(names)) => {
            return names.get_value_by_name(name).is_some();
        }
        (Value::String(word), Kind::Bool) => match word.as_str() {
            "true" => *value = Value::Bool(true),
            "false" => *value = Value::Bool(false),
            _ => {}
        },
        _ => {}
    }
    true
}

/// The same JSON without characters beyond ASCII, which occur in strings only.
pub(crate) fn to_ascii(text: Vec<u8>) -> Vec<u8> {
    if text.is_ascii() {
        return text;
    }
    let text = String::from_utf8(text).expect("a serializer of JSON writes UTF-8");
    let mut out = Vec::with_capacity(text.len() * 2);
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character as u8);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
    }
    out
}
