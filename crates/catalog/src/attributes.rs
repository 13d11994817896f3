//! Folders, tags and labels of VMs: what they are changed to, and which VMs they pick.

use std::collections::BTreeMap;

use api::types::{Attributes, ChangeAttributes, ListVms, Vm};
use api::{Error, Result, TAGS_MAX, VmName, code, fold, parse_folder, parse_label_value};
use globset::{GlobBuilder, GlobMatcher};
use meta::Txn;

use crate::catalog::Catalog;

fn tag(text: &str) -> Result<String> {
    Ok(VmName::parse_for("a tag", text)?.as_str().to_owned())
}

fn label_key(text: &str) -> Result<String> {
    Ok(VmName::parse_for("a label", text)?.as_str().to_owned())
}

/// `attributes` as they are after `change`. A tag that is added and removed is removed.
fn changed(attributes: &Attributes, change: &ChangeAttributes) -> Result<Attributes> {
    let named = [
        change.add_tags.len(),
        change.remove_tags.len(),
        change.set_labels.len(),
        change.remove_labels.len(),
    ];
    if named.iter().any(|count| *count > TAGS_MAX) {
        let reason = format!("more than {TAGS_MAX} tags or labels in one list");
        return Err(Error::new(code::INVALID_REQUEST, reason).hint("name fewer at a time"));
    }
    let folder = match &change.folder {
        Some(folder) => parse_folder(folder)?,
        None => attributes.folder.clone(),
    };
    let mut tags: BTreeMap<String, String> =
        attributes.tags.iter().map(|tag| (fold(tag), tag.clone())).collect();
    for added in &change.add_tags {
        let added = tag(added)?;
        tags.entry(fold(&added)).or_insert(added);
    }
    for removed in &change.remove_tags {
        tags.remove(&fold(&tag(removed)?));
    }
    let mut labels = attributes.labels.clone();
    for (key, value) in &change.set_labels {
        labels.insert(label_key(key)?, parse_label_value(value)?);
    }
    for removed in &change.remove_labels {
        labels.remove(&label_key(removed)?);
    }
    for (count, what) in [(tags.len(), "tags"), (labels.len(), "labels")] {
        if count > TAGS_MAX {
            let reason = format!("it would have {count} {what}, and {TAGS_MAX} are the most");
            return Err(
                Error::new(code::TOO_MANY_ATTRIBUTES, reason).hint(format!("remove some {what} first"))
            );
        }
    }
    Ok(Attributes { folder, tags: tags.into_values().collect(), labels })
}

/// Picks VMs by name, tags, folder and label.
pub(crate) struct Pick {
    name: Option<GlobMatcher>,
    tags: Vec<String>,
    folder: Option<String>,
    label: Option<(String, Option<String>)>,
}

/// Longest pattern for names, bytes.
const PATTERN_BYTES_MAX: usize = 255;

/// A pattern for names: case tells none apart.
fn pattern(text: &str) -> Result<GlobMatcher> {
    let wrong = || {
        let shown: String = text.chars().take(PATTERN_BYTES_MAX).collect();
        Error::new(code::INVALID_REQUEST, format!("{shown:?} is no pattern for names"))
            .hint("give it as 'web*': * for any characters, ? for one")
    };
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*?".contains(&byte);
    if text.is_empty() || text.len() > PATTERN_BYTES_MAX || !text.bytes().all(is_fit) {
        return Err(wrong());
    }
    let built = GlobBuilder::new(text).case_insensitive(true).build();
    Ok(built.map_err(|_| wrong())?.compile_matcher())
}

impl Pick {
    /// What `which` asks for.
    pub(crate) fn new(which: &ListVms) -> Result<Self> {
        let pair = |label: &str| -> Result<(String, Option<String>)> {
            let (key, value) = label.split_once('=').map_or((label, None), |(key, value)| (key, Some(value)));
            Ok((label_key(key)?, value.map(parse_label_value).transpose()?))
        };
        let label = which.label.as_deref().map(pair);
        let tags = which.tag.as_deref().into_iter().flat_map(|tags| tags.split(','));
        Ok(Self {
            name: which.name.as_deref().map(pattern).transpose()?,
            tags: tags.map(|text| Ok(fold(&tag(text)?))).collect::<Result<_>>()?,
            folder: which.folder.as_deref().map(parse_folder).transpose()?,
            label: label.transpose()?,
        })
    }

    /// Whether a VM is picked.
    pub(crate) fn takes(&self, name: &str, of: &Attributes) -> bool {
        let has_tag = |tag: &String| of.tags.iter().any(|own| own.eq_ignore_ascii_case(tag));
        let has_label = |(key, value): &(String, Option<String>)| {
            of.labels.get(key).is_some_and(|own| value.as_ref().is_none_or(|value| own == value))
        };
        self.name.as_ref().is_none_or(|name_like| name_like.is_match(name))
            && self.tags.iter().all(has_tag)
            && self.folder.as_ref().is_none_or(|folder| is_within(&of.folder, folder))
            && self.label.as_ref().is_none_or(has_label)
    }
}

/// Whether the folder `own` is `folder` or below it.
fn is_within(own: &str, folder: &str) -> bool {
    let (own, folder) = (fold(own), fold(folder));
    let below = own.strip_prefix(folder.trim_end_matches('/'));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Catalog {
    /// Changes the folder, tags and labels of a VM.
    pub(crate) async fn try_change_attributes(&self, name: &VmName, change: &ChangeAttributes) -> Result<Vm> {
        let (kv, mut record) = self.find_ready(name).await?;
        record.attributes = changed(&record.attributes, change)?;
        self.replace(name, &kv, &record, Txn::new(), &[], &[]).await?;
        tracing::info!(vm = %name, attributes = ?record.attributes, "VM ordered anew");
        self.describe(name.as_str(), &record).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_of_what_they_name_and_within_bounds() {
        let change = |change: ChangeAttributes| changed(&Attributes::default(), &change);
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let made = change(ChangeAttributes {
            folder: Some("/prod/web".to_owned()),
            add_tags: texts(&["db", "Prod", "prod"]),
            set_labels: [("owner".to_owned(), "ops, \u{e4}".to_owned())].into(),
            ..ChangeAttributes::default()
        });
        let made = made.unwrap();
        assert_eq!((made.folder.as_str(), &made.tags), ("/prod/web", &texts(&["db", "Prod"])));
        let less = ChangeAttributes {
            remove_tags: texts(&["PROD", "none"]),
            remove_labels: texts(&["owner"]),
            ..ChangeAttributes::default()
        };
        let less = changed(&made, &less).unwrap();
        assert_eq!((less.folder.as_str(), less.tags, less.labels.len()), ("/prod/web", texts(&["db"]), 0));
        for wrong in ["", "prod", "/a//b", "/a/", "/a/../b", "/ä", &format!("/{}", "a/".repeat(200))] {
            let folder = Some(wrong.to_owned());
            let refused = change(ChangeAttributes { folder, ..ChangeAttributes::default() }).unwrap_err();
            assert_eq!(refused.code, code::INVALID_NAME, "{wrong:?}");
        }
        let many: Vec<String> = (0..=TAGS_MAX).map(|number| format!("t{number}")).collect();
        let all_but_one = ChangeAttributes { add_tags: many[1..].to_vec(), ..ChangeAttributes::default() };
        assert_eq!(change(all_but_one).unwrap().tags.len(), TAGS_MAX);
        let all = ChangeAttributes { add_tags: many.clone(), ..ChangeAttributes::default() };
        assert_eq!(change(all).unwrap_err().code, code::INVALID_REQUEST);
        let full = Attributes { tags: many[1..].to_vec(), ..Attributes::default() };
        let more = ChangeAttributes { add_tags: texts(&["more"]), ..ChangeAttributes::default() };
        assert_eq!(changed(&full, &more).unwrap_err().code, code::TOO_MANY_ATTRIBUTES);
        let value = ("key".to_owned(), "two\nlines".to_owned());
        let lines = ChangeAttributes { set_labels: [value].into(), ..ChangeAttributes::default() };
        assert_eq!(change(lines).unwrap_err().code, code::INVALID_NAME);
    }

    #[test]
    fn a_pick_takes_what_all_of_it_fits() {
        let of = Attributes {
            folder: "/Prod/web".to_owned(),
            tags: vec!["db".to_owned(), "Gold".to_owned()],
            labels: [("owner".to_owned(), "ops".to_owned())].into(),
        };
        let text = |text: &str| Some(text.to_owned());
        let takes = |which: ListVms| Pick::new(&which).unwrap().takes("Web01", &of);
        assert!(takes(ListVms::default()));
        for (name, is_like) in
            [("web*", true), ("*01", true), ("web", false), ("web??", true), ("?eb0*", true)]
        {
            assert_eq!(takes(ListVms { name: text(name), ..ListVms::default() }), is_like, "{name}");
        }
        for (tag, has) in [("gold", true), ("gold,db", true), ("gold,x", false), ("go", false)] {
            assert_eq!(takes(ListVms { tag: text(tag), ..ListVms::default() }), has, "{tag}");
        }
        for (folder, is_in) in
            [("/", true), ("/prod", true), ("/prod/web", true), ("/pro", false), ("/prod/web/x", false)]
        {
            assert_eq!(takes(ListVms { folder: text(folder), ..ListVms::default() }), is_in, "{folder}");
        }
        for (label, has) in [("owner", true), ("owner=ops", true), ("owner=", false), ("own", false)] {
            assert_eq!(takes(ListVms { label: text(label), ..ListVms::default() }), has, "{label}");
        }
        let both = ListVms { name: text("web*"), tag: text("x"), ..ListVms::default() };
        assert!(!takes(both));
        for wrong in [
            ListVms { name: text("web["), ..ListVms::default() },
            ListVms { name: text(""), ..ListVms::default() },
            ListVms { tag: text("a,,b"), ..ListVms::default() },
            ListVms { folder: text("prod"), ..ListVms::default() },
            ListVms { label: text("=x"), ..ListVms::default() },
        ] {
            assert!(Pick::new(&wrong).is_err(), "{wrong:?}");
        }
    }
}
