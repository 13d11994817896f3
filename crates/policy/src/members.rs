//! Which group each VM is in, and by which rule.
//!
//! A VM is in one group at most. One that several take is in the one that knows it best: the group that the
//! VM itself names; then one that names the VM, has a tag of it, has its folder or one above, has a pattern
//! or regular expression for its name, in this order; of these the one with the higher priority; then the one
//! with the deeper folder; then the first by name. A group never has what it excludes, unless the VM itself
//! names the group. The built-in group takes what is left.
//!
//! All groups are compiled together: a VM costs a look-up of its name, of each tag and of each folder above
//! it, one pass of all patterns, and a match of each regular expression, however many groups there are.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use api::types::Attributes;
use api::{Error, Result, code, fold};
use globset::{GlobSet, GlobSetBuilder};
use regex::bytes::Regex;

use crate::group::{Group, Rules, glob, regex};
use crate::limits::GROUPS_MAX;

/// A VM, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Vm<'v> {
    /// Its name.
    pub name: &'v str,
    /// Its folder, tags and labels.
    pub attributes: &'v Attributes,
    /// The group that it was put into by name.
    pub group: Option<&'v str>,
}

/// A kind of rule, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Vm,
    Tag,
    Folder,
    Pattern,
    Regex,
}

/// A rule that fits a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule<'g> {
    /// The VM itself names the group.
    Own,
    /// The VM is named.
    Vm(&'g str),
    /// The VM has this tag.
    Tag(&'g str),
    /// The VM is in this folder or below it.
    Folder(&'g str),
    /// Its name is like this.
    Pattern(&'g str),
    /// Its name matches this regular expression.
    Regex(&'g str),
    /// No group takes the VM, so the built-in one does.
    Rest,
}

/// Where a VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'g> {
    /// In a group, by a rule.
    In {
        /// The group.
        group: &'g Group,
        /// The rule that took it.
        rule: Rule<'g>,
    },
    /// In none: the built-in group excludes it.
    Nowhere,
}

/// Which group a VM is in, and why. As text it is one line for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'g, 'v> {
    /// Where it is.
    pub place: Place<'g>,
    /// A group that would have had it, and the rule by which that excludes it: of the strongest such group.
    pub excluded: Option<(&'g Group, Rule<'g>)>,
    /// The group that the VM itself names, when there is none of this name.
    pub missing: Option<&'v str>,
}

impl<'g> Member<'g, '_> {
    /// The group.
    pub fn group(&self) -> Option<&'g Group> {
        match self.place {
            Place::In { group, .. } => Some(group),
            Place::Nowhere => None,
        }
    }
}

impl fmt::Display for Member<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(missing) = self.missing {
            write!(f, "names group {missing}, which does not exist; ")?;
        }
        match (self.excluded, self.place) {
            (Some((group, rule)), Place::In { rule: Rule::Rest, .. }) => {
                write!(f, "is excluded by group {}, since it {rule}: ", group.name)?;
            }
            (Some((group, rule)), Place::Nowhere) => {
                return write!(f, "is excluded by group {}, since it {rule}: in no group", group.name);
            }
            (_, Place::Nowhere) => return f.write_str("in no group"),
            _ => {}
        }
        match self.place {
            Place::In { group, rule: Rule::Own } => write!(f, "names group {} itself", group.name),
            Place::In { group, rule: Rule::Rest } if self.excluded.is_some() => {
                write!(f, "the built-in group {}", group.name)
            }
            Place::In { group, rule: Rule::Rest } => {
                write!(f, "no group matches: the built-in group {}", group.name)
            }
            Place::In { group, rule } => write!(f, "{rule} of group {}", group.name),
            Place::Nowhere => Ok(()),
        }
    }
}

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("names the group"),
            Self::Vm(name) => write!(f, "is VM {name:?}"),
            Self::Tag(tag) => write!(f, "has tag {tag:?}"),
            Self::Folder(folder) => write!(f, "is in folder {folder:?}"),
            Self::Pattern(text) => write!(f, "matches '{text}'"),
            Self::Regex(text) => write!(f, "matches regex '{text}'"),
            Self::Rest => f.write_str("is left"),
        }
    }
}

/// A rule of a group.
#[derive(Debug, Clone, Copy)]
struct Entry {
    group: usize,
    excludes: bool,
    kind: Kind,
    /// Its place among the rules of its kind.
    at: usize,
}

/// All groups of a site, ready to be asked.
#[derive(Debug)]
pub struct Groups {
    /// By name; the built-in one is among them.
    groups: Vec<Group>,
    built_in: usize,
    entries: Vec<Entry>,
    /// Entries by what they ask for.
    vms: BTreeMap<String, Vec<usize>>,
    tags: BTreeMap<String, Vec<usize>>,
    folders: BTreeMap<String, Vec<usize>>,
    patterns: GlobSet,
    /// The entries of `patterns`.
    of_patterns: Vec<usize>,
    regexes: Vec<(Regex, usize)>,
}

impl Groups {
    /// Compiles groups. The built-in one is added when it is not among them.
    ///
    /// # Errors
    /// What is wrong with one of them; `invalid_request` when two have one name or there are too many.
    pub fn new(mut groups: Vec<Group>) -> Result<Self> {
        if !groups.iter().any(Group::is_built_in) {
            groups.push(Group::built_in());
        }
        if groups.len() > GROUPS_MAX {
            let reason = format!("{} groups, and {GROUPS_MAX} are the most", groups.len());
            return Err(
                Error::new(code::INVALID_REQUEST, reason).hint("delete groups, or select more VMs with one")
            );
        }
        groups.iter().try_for_each(Group::check)?;
        groups.sort_by_cached_key(|group| fold(&group.name));
        if let Some(two) = groups.windows(2).find(|two| two[0].name.eq_ignore_ascii_case(&two[1].name)) {
            let reason = format!("there are two groups {}", two[0].name);
            return Err(Error::new(code::INVALID_REQUEST, reason).hint("give each a name of its own"));
        }
        let built_in = groups.iter().position(Group::is_built_in).unwrap_or(0);
        let mut compiling = Compiling::default();
        for (number, group) in groups.iter().enumerate() {
            compiling.add(number, &group.include, false)?;
            compiling.add(number, &group.exclude, true)?;
        }
        let Compiling { entries, vms, tags, folders, patterns, of_patterns, regexes } = compiling;
        let patterns = patterns.build().map_err(|error| {
            Error::new(code::INVALID_REQUEST, format!("the groups' patterns are too large together: {error}"))
                .hint("use fewer patterns, or tags")
        })?;
        Ok(Self { groups, built_in, entries, vms, tags, folders, patterns, of_patterns, regexes })
    }

    /// All groups by name, the built-in one among them.
    pub fn all(&self) -> &[Group] {
        &self.groups
    }

    /// The group of a name.
    pub fn get(&self, name: &str) -> Option<&Group> {
        let name = fold(name);
        let at = self.groups.binary_search_by_key(&name, |group| fold(&group.name)).ok()?;
        self.groups.get(at)
    }

    /// Which group a VM is in.
    pub fn of<'v>(&self, vm: &Vm<'v>) -> Member<'_, 'v> {
        let own = vm.group.and_then(|name| self.get(name));
        if let Some(group) = own {
            return Member { place: Place::In { group, rule: Rule::Own }, excluded: None, missing: None };
        }
        let mut hits = self.hits(vm);
        hits.sort_by_key(|hit| self.rank(hit));
        let excludes = |group: usize| hits.iter().find(|hit| hit.excludes && hit.group == group);
        let mut member = Member { place: Place::Nowhere, excluded: None, missing: vm.group };
        for hit in hits.iter().filter(|hit| !hit.excludes) {
            match excludes(hit.group) {
                None => {
                    member.place = Place::In { group: &self.groups[hit.group], rule: self.rule(hit) };
                    return member;
                }
                Some(by) => {
                    member.excluded.get_or_insert((&self.groups[hit.group], self.rule(by)));
                }
            }
        }
        let built_in = &self.groups[self.built_in];
        match excludes(self.built_in) {
            None => member.place = Place::In { group: built_in, rule: Rule::Rest },
            Some(by) => member.excluded = Some((built_in, self.rule(by))),
        }
        member
    }

    /// All rules that fit a VM.
    fn hits(&self, vm: &Vm<'_>) -> Vec<Entry> {
        let mut found: Vec<usize> = Vec::new();
        found.extend(self.vms.get(&fold(vm.name)).into_iter().flatten());
        let mut tags: Vec<String> = vm.attributes.tags.iter().map(|tag| fold(tag)).collect();
        tags.sort_unstable();
        tags.dedup();
        found.extend(tags.iter().filter_map(|tag| self.tags.get(tag)).flatten());
        if !self.folders.is_empty() {
            let folder = fold(&vm.attributes.folder);
            found.extend(self.folders.get("").into_iter().flatten());
            let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
            for above in ends.map(|end| &folder[..end]).filter(|above| !above.is_empty()) {
                found.extend(self.folders.get(above).into_iter().flatten());
            }
        }
        found.extend(self.patterns.matches(vm.name).into_iter().map(|at| self.of_patterns[at]));
        let fits = |(regex, _): &&(Regex, usize)| regex.is_match(vm.name.as_bytes());
        found.extend(self.regexes.iter().filter(fits).map(|(_, entry)| *entry));
        found.into_iter().map(|entry| self.entries[entry]).collect()
    }

    /// The order in which groups get a VM; for rules of one group, which is named.
    fn rank(&self, hit: &Entry) -> (Kind, Reverse<i32>, Reverse<usize>, usize, Kind, usize) {
        let group = &self.groups[hit.group];
        let depth = match self.rule(hit) {
            Rule::Folder(folder) => folder.trim_end_matches('/').matches('/').count(),
            _ => 0,
        };
        let kind = if hit.kind == Kind::Regex { Kind::Pattern } else { hit.kind };
        (kind, Reverse(group.priority), Reverse(depth), hit.group, hit.kind, hit.at)
    }

    fn rule(&self, hit: &Entry) -> Rule<'_> {
        let group = &self.groups[hit.group];
        let rules = if hit.excludes { &group.exclude } else { &group.include };
        match hit.kind {
            Kind::Vm => Rule::Vm(&rules.vms[hit.at]),
            Kind::Tag => Rule::Tag(&rules.tags[hit.at]),
            Kind::Folder => Rule::Folder(&rules.folders[hit.at]),
            Kind::Pattern => Rule::Pattern(&rules.patterns[hit.at]),
            Kind::Regex => Rule::Regex(&rules.regexes[hit.at]),
        }
    }
}

struct Compiling {
    entries: Vec<Entry>,
    vms: BTreeMap<String, Vec<usize>>,
    tags: BTreeMap<String, Vec<usize>>,
    folders: BTreeMap<String, Vec<usize>>,
    patterns: GlobSetBuilder,
    of_patterns: Vec<usize>,
    regexes: Vec<(Regex, usize)>,
}

impl Default for Compiling {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            vms: BTreeMap::new(),
            tags: BTreeMap::new(),
            folders: BTreeMap::new(),
            patterns: GlobSetBuilder::new(),
            of_patterns: Vec::new(),
            regexes: Vec::new(),
        }
    }
}

impl Compiling {
    /// Adds the rules of a group, or what it excludes.
    fn add(&mut self, group: usize, rules: &Rules, excludes: bool) -> Result<()> {
        let entries = &mut self.entries;
        let mut entry = |kind: Kind, at: usize| {
            entries.push(Entry { group, excludes, kind, at });
            entries.len() - 1
        };
        for (at, vm) in rules.vms.iter().enumerate() {
            self.vms.entry(fold(vm)).or_default().push(entry(Kind::Vm, at));
        }
        for (at, tag) in rules.tags.iter().enumerate() {
            self.tags.entry(fold(tag)).or_default().push(entry(Kind::Tag, at));
        }
        for (at, folder) in rules.folders.iter().enumerate() {
            let folder = fold(folder.trim_end_matches('/'));
            self.folders.entry(folder).or_default().push(entry(Kind::Folder, at));
        }
        for (at, pattern) in rules.patterns.iter().enumerate() {
            self.patterns.add(glob(pattern)?);
            self.of_patterns.push(entry(Kind::Pattern, at));
        }
        for (at, text) in rules.regexes.iter().enumerate() {
            self.regexes.push((regex(text)?, entry(Kind::Regex, at)));
        }
        Ok(())
    }
}
