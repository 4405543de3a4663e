//! `GET /openapi.json`: what is ours of the HTTP API, for programs that make clients of it. The Mesos v1 API is
//! described elsewhere, by others.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// The same as in the documents.
const DOCUMENT: &str = include_str!("../../../docs/openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::{of_each_master, of_the_cluster, of_the_leader};
    use super::DOCUMENT;

    #[test]
    fn every_route_is_in_the_document_and_the_other_way_round() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<(&str, &str)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods").keys();
                methods.map(|method| (method.as_str(), path.as_str()))
            })
            .collect();
        let all = [of_each_master(), of_the_cluster(), of_the_leader()];
        let served: BTreeSet<(&str, &str)> = all.iter().flat_map(|it| it.all.clone()).collect();
        assert_eq!(described, served);
    }

    #[test]
    fn every_parameter_of_a_path_is_described_and_every_reference_leads_somewhere() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        for (path, methods) in document["paths"].as_object().expect("paths") {
            let named: BTreeSet<&str> = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            for operation in methods.as_object().expect("methods").values() {
                let parameters = operation["parameters"].as_array();
                let in_path = parameters.into_iter().flatten();
                let in_path = in_path.filter(|it| it["in"] == "path");
                let described: BTreeSet<&str> =
                    in_path.filter_map(|it| it["name"].as_str()).collect();
                assert_eq!(described, named, "{path}");
                assert!(operation["operationId"].is_string(), "{path}");
            }
        }
        let mut waiting = vec![&document];
        while let Some(value) = waiting.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                        let pointer = reference.strip_prefix('#').expect("of this document");
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    waiting.extend(fields.values());
                }
                Value::Array(list) => waiting.extend(list),
                _ => {}
            }
        }
    }
}
