//! Actions about the history of datasets: the calls of the service with JSON in the place of messages.

use chrono::DateTime;
use h5flight_array::Reason;
use h5flight_catalog::model::{Principal, Role};
use h5flight_proto::v1::{self, version_selector::Kind};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::Asked;
use crate::convert::history as as_json;
use crate::error::{Error, Result as Answer};
use crate::history;
use crate::service::Service;

/// The actions with what they are for. VERSION is {version}, {as_of: RFC 3339} or {tag}.
pub const ACTIONS: &[(&str, &str)] = &[
    ("list-versions", "{animal, experiment, dataset, page_size?, page_token?} -> {versions, next_token}, newest first"),
    (
        "diff-versions",
        "{animal, experiment, dataset, from: VERSION, to: VERSION} -> {changes, attributes, shared, ...}; VERSION is \
         {version} or {as_of} or {tag}",
    ),
    (
        "rollback",
        "{animal, experiment, dataset, to: VERSION, expected_version?} -> {version, before, restored, already}; needs \
         the role ingest",
    ),
    (
        "set-tag",
        "{animal, experiment, dataset?, tag, at?: VERSION, move?} -> {datasets, changed}; needs the role ingest",
    ),
    ("delete-tag", "{animal, experiment, dataset?, tag} -> {datasets}; needs the role ingest"),
];

/// A version as JSON names it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AskedVersion {
    version: Option<u64>,
    as_of: Option<String>,
    tag: Option<String>,
}

impl AskedVersion {
    /// The same on the wire.
    ///
    /// # Errors
    /// `bad_request` for more than one name, or a time that is none.
    pub fn selector(&self) -> Answer<v1::VersionSelector> {
        let kind = match (self.version, &self.as_of, &self.tag) {
            (None, None, None) => None,
            (Some(version), None, None) => Some(Kind::Version(version)),
            (None, Some(time), None) => {
                let at = DateTime::parse_from_rfc3339(time).map_err(|error| {
                    Error::new(Reason::BadRequest, format!("as_of {time:?} is no RFC 3339 time: {error}"))
                })?;
                Some(Kind::AsOfUs(at.timestamp_micros()))
            }
            (None, None, Some(tag)) => Some(Kind::Tag(tag.clone())),
            _ => return Err(Error::new(Reason::BadRequest, "a version is one of version, as_of and tag")),
        };
        Ok(v1::VersionSelector { kind })
    }
}

/// The role that an action of this module needs; `None` for others.
pub fn role(action: &str) -> Option<Role> {
    match action {
        "list-versions" | "diff-versions" => Some(Role::Read),
        "rollback" | "set-tag" | "delete-tag" => Some(Role::Ingest),
        _ => None,
    }
}

/// Answers an action for which there is a [`role`].
pub async fn act(service: &Arc<Service>, principal: &Principal, action: &str, asked: Asked) -> Answer<Value> {
    let page = asked.page();
    let Asked { animal, experiment, dataset, at, from, to, tag, r#move, expected_version, .. } = asked;
    Ok(match action {
        "list-versions" => {
            let asked = v1::ListVersionsRequest { animal, experiment, dataset, page };
            let found = history::versions(service, asked).await?;
            let versions: Vec<_> = found.versions.iter().map(as_json::version_json).collect();
            json!({ "versions": versions, "next_token": found.next_token })
        }
        "diff-versions" => {
            let (from, to) = (Some(from.selector()?), Some(to.selector()?));
            let asked = v1::DiffVersionsRequest { animal, experiment, dataset, from, to };
            as_json::diff_json(&history::diff(service, asked).await?)
        }
        "rollback" => {
            let to = Some(to.selector()?);
            let asked = v1::RollbackRequest { animal, experiment, dataset, to, expected_version };
            as_json::rollback_json(&history::roll_back(service, principal, asked).await?)
        }
        "set-tag" => {
            let at = Some(at.selector()?);
            let asked = v1::SetTagRequest { animal, experiment, dataset, tag, at, r#move };
            let tagged = history::set_tag(service, principal, asked).await?;
            json!({ "datasets": tagged.datasets, "changed": tagged.changed })
        }
        _ => {
            let asked = v1::DeleteTagRequest { animal, experiment, dataset, tag };
            json!({ "datasets": history::delete_tag(service, asked).await?.datasets })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_a_version_in_one_way() {
        let kind = |text: &str| {
            let asked: AskedVersion = serde_json::from_str(text).map_err(|error| error.to_string())?;
            asked.selector().map(|selector| selector.kind).map_err(|error| error.to_string())
        };
        assert_eq!(kind("{}"), Ok(None));
        assert_eq!(kind(r#"{"version": 3}"#), Ok(Some(Kind::Version(3))));
        assert_eq!(kind(r#"{"tag": "paper"}"#), Ok(Some(Kind::Tag("paper".into()))));
        assert_eq!(kind(r#"{"as_of": "1970-01-01T01:00:00.000002+01:00"}"#), Ok(Some(Kind::AsOfUs(2))));
        for bad in [r#"{"as_of": "today"}"#, r#"{"version": 1, "tag": "x"}"#, r#"{"number": 1}"#] {
            assert!(kind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_action_has_a_role() {
        assert!(ACTIONS.iter().all(|(name, _)| role(name).is_some()));
        assert_eq!(role("list-datasets"), None);
    }
}
