//! What VMs are ordered by: a folder, tags, labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Asked;

/// The folder, tags and labels of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Attributes {
    /// The folder it is in: `/` for none, else names such as `/prod/web`.
    #[serde(default)]
    pub folder: String,
    /// Its tags, in order. Tags that differ in case alone are one.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Its labels: a value for each key.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What is to change of a VM's folder, tags and labels; the rest stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeAttributes {
    /// The folder it is in from now on; folders come into being with the first VM in them.
    #[schema(nullable = false, max_length = 255, example = "/prod/web")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Tags that it has from now on.
    #[schema(max_items = 32, example = json!(["prod"]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_tags: Vec<String>,
    /// Tags that it has no more.
    #[schema(max_items = 32)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_tags: Vec<String>,
    /// Labels that it has from now on, with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_labels: BTreeMap<String, String>,
    /// Keys of labels that it has no more.
    #[schema(max_items = 32)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_labels: Vec<String>,
}

/// Which VMs are listed: those to which all applies that is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListVms {
    /// Their names are like this: `*` stands for any characters, `?` for one, `[ab]` for one of these, `{a,b}` for one
    /// of these words.
    #[param(nullable = false, max_length = 255, example = "web*")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// They have this tag, or all of these, with commas between them.
    #[param(nullable = false, max_length = 2047, example = "prod")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// They are in this folder, or one below it.
    #[param(nullable = false, max_length = 255, example = "/prod")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// They have a label of this key, or with `KEY=VALUE` this very label.
    #[param(nullable = false, max_length = 319, example = "owner=ops")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Asked for ListVms {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
