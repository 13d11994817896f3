//! What VMs are ordered by: a folder, tags, labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, ToSchema};

use super::Asked;
use crate::limits::{FOLDER_BYTES_MAX, LABEL_CHARS_MAX, TAGS_MAX};

/// Names of tags and keys of labels, as names of VMs.
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";
/// Folders.
const FOLDER: &str = "^/$|^(/[A-Za-z0-9][A-Za-z0-9._-]{0,62})+$";

/// The folder, tags and labels of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attributes {
    /// The folder it is in: `/` for none, else names such as `/prod/web`.
    #[serde(default = "root")]
    pub folder: String,
    /// Its tags, in order. Tags that differ in case alone are one.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Its labels: a value for each key.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Default for Attributes {
    /// In no folder, without tags and labels.
    fn default() -> Self {
        Self { folder: root(), tags: Vec::new(), labels: BTreeMap::new() }
    }
}

/// The folder of what is in none.
fn root() -> String {
    "/".to_owned()
}

/// What is to change of a VM's folder, tags and labels; the rest stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeAttributes {
    /// The folder it is in from now on; folders come into being with the first VM in them.
    #[schema(schema_with = folder)]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Tags that it has from now on.
    #[schema(schema_with = names)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_tags: Vec<String>,
    /// Tags that it has no more.
    #[schema(schema_with = names)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_tags: Vec<String>,
    /// Labels that it has from now on, with their values.
    #[schema(schema_with = labels)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_labels: BTreeMap<String, String>,
    /// Keys of labels that it has no more.
    #[schema(schema_with = names)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_labels: Vec<String>,
}

/// No `null`: a field that is there has a value.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// A name of a tag or a key of a label.
fn name() -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(NAME)).build()
}

/// A list of such names.
fn names() -> Array {
    ArrayBuilder::new().items(name()).max_items(Some(TAGS_MAX)).build()
}

fn folder() -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(FOLDER));
    text.max_length(Some(FOLDER_BYTES_MAX)).examples(["/prod/web"]).build()
}

fn labels() -> Object {
    let value = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[^\\x00-\\x1f\\x7f-\\x9f]*$"));
    let value = value.max_length(Some(LABEL_CHARS_MAX)).build();
    ObjectBuilder::new()
        .property_names(Some(Schema::Object(name())))
        .additional_properties(Some(Schema::Object(value)))
        .max_properties(Some(TAGS_MAX))
        .build()
}

/// Which VMs are listed: those to which all applies that is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListVms {
    /// Their names are like this: `*` stands for any characters, `?` for one.
    #[param(
        nullable = false,
        pattern = "^[A-Za-z0-9._*?-]{1,255}$",
        min_length = 1,
        max_length = 255,
        example = "web*"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// They have this tag, or all of these, with commas between them.
    #[param(
        nullable = false,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(,[A-Za-z0-9][A-Za-z0-9._-]{0,62}){0,31}$",
        min_length = 1,
        max_length = 2047,
        example = "prod"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// They are in this folder, or one below it.
    #[param(
        nullable = false,
        pattern = "^/$|^(/[A-Za-z0-9][A-Za-z0-9._-]{0,62})+$",
        min_length = 1,
        max_length = 255,
        example = "/prod"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// They have a label of this key, or with `KEY=VALUE` this very label.
    #[param(
        nullable = false,
        pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(=[^\x00-\x1f\x7f-\x9f]{0,255})?$",
        min_length = 1,
        max_length = 319,
        example = "owner=ops"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Asked for ListVms {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
