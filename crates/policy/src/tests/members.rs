//! Membership against an evaluation of one rule after the other.

use api::types::Attributes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{DEFAULT_GROUP, Group, Groups, Place, Rule, Rules, Vm};

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn attributes(folder: &str, tags: &[&str]) -> Attributes {
    Attributes { folder: folder.to_owned(), tags: texts(tags), ..Attributes::default() }
}

/// Whether a name is like a pattern: both of the few characters that the test uses.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| is_like(rest, &name[skip..])),
        (Some((one, rest)), Some((first, others))) => {
            (*one == b'?' || one.eq_ignore_ascii_case(first)) && is_like(rest, others)
        }
        _ => false,
    }
}

/// The strongest rule that fits, as a number, with the depth of its folder.
fn strength(rules: &Rules, vm: &Vm<'_>) -> Option<(u8, usize)> {
    let lower = |text: &String| text.to_lowercase();
    let name = vm.name.to_lowercase();
    if rules.vms.iter().map(lower).any(|own| own == name) {
        return Some((0, 0));
    }
    if rules.tags.iter().map(lower).any(|tag| vm.attributes.tags.iter().map(lower).any(|own| own == tag)) {
        return Some((1, 0));
    }
    let parts = |folder: &str| -> Vec<String> {
        folder.to_lowercase().split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let own = parts(&vm.attributes.folder);
    let above = rules.folders.iter().map(|folder| parts(folder)).filter(|folder| own.starts_with(folder));
    if let Some(depth) = above.map(|folder| folder.len()).max() {
        return Some((2, depth));
    }
    let is_like = rules.patterns.iter().any(|pattern| is_like(pattern.as_bytes(), name.as_bytes()));
    // The regular expressions of the test are names with `.*` for `*` and `.` for `?`.
    let plain = |regex: &String| regex.replace(".*", "*").replace('.', "?");
    let matches =
        rules.regexes.iter().map(plain).any(|plain| self::is_like(plain.as_bytes(), name.as_bytes()));
    (is_like || matches).then_some((3, 0))
}

/// The group's name, or none.
fn model(groups: &[Group], vm: &Vm<'_>) -> Option<String> {
    let called = |name: &str| groups.iter().find(|group| group.name.eq_ignore_ascii_case(name));
    if let Some(own) = vm.group.and_then(called) {
        return Some(own.name.clone());
    }
    // The built-in group is there without being listed.
    if vm.group.is_some_and(|own| own.eq_ignore_ascii_case(DEFAULT_GROUP)) {
        return Some(DEFAULT_GROUP.to_owned());
    }
    let takes = groups.iter().filter(|group| strength(&group.exclude, vm).is_none());
    let mut takes: Vec<_> = takes
        .filter_map(|group| {
            let (kind, depth) = strength(&group.include, vm)?;
            Some((kind, -group.priority, -(depth as i64), group.name.to_lowercase(), group.name.clone()))
        })
        .collect();
    takes.sort();
    let rest = called(DEFAULT_GROUP).is_none_or(|rest| strength(&rest.exclude, vm).is_none());
    let first = takes.into_iter().next().map(|(.., name)| name);
    first.or_else(|| {
        rest.then(|| called(DEFAULT_GROUP).map_or(DEFAULT_GROUP.to_owned(), |rest| rest.name.clone()))
    })
}

fn name() -> impl Strategy<Value = String> {
    "[abAB][ab1]{0,3}"
}

fn folder() -> impl Strategy<Value = String> {
    vec("[aAb]{1,2}", 0..4).prop_map(|parts| format!("/{}", parts.join("/")))
}

fn rules(most: usize) -> impl Strategy<Value = Rules> {
    let regex = prop_oneof!["[ab.][ab1.]{0,2}", Just(".*".to_owned()), "[ab][.][*]"];
    let (patterns, tags) = ("[ab*?][ab1*?]{0,3}", "[tTuv]");
    (
        vec(name(), 0..=most),
        vec(tags, 0..=most),
        vec(folder(), 0..=most),
        vec(patterns, 0..=most),
        vec(regex, 0..=most),
    )
        .prop_map(|(vms, tags, folders, patterns, regexes)| Rules {
            vms,
            tags,
            folders,
            patterns,
            regexes,
        })
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let one = (rules(2), rules(1), -1..2i32, any::<bool>());
    (vec(one, 0..6), proptest::option::of(rules(1))).prop_map(|(all, rest)| {
        let mut groups: Vec<Group> = (all.into_iter().enumerate())
            .map(|(number, (include, exclude, priority, has_excludes))| {
                let exclude = if has_excludes { exclude } else { Rules::default() };
                Group { include, exclude, priority, ..Group::new(&format!("g{number}")) }
            })
            .collect();
        groups.extend(rest.map(|exclude| Group { exclude, ..Group::new("Default") }));
        groups.reverse();
        groups
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_vm_is_where_the_model_puts_it(
        groups in groups(),
        vms in vec(
            (name(), folder(), vec("[tTuvw]", 0..3),
                proptest::option::weighted(0.2, "[gG][0-7]|default")),
            1..12,
        ),
    ) {
        let compiled = Groups::new(groups.clone()).unwrap();
        for (name, folder, tags, group) in &vms {
            let (folder, tags) = (folder.clone(), tags.clone());
            let attributes = Attributes { folder, tags, ..Attributes::default() };
            let vm = Vm { name, attributes: &attributes, group: group.as_deref() };
            let member = compiled.of(&vm);
            prop_assert_eq!(member.group().map(|group| group.name.clone()), model(&groups, &vm), "{}", member);
            prop_assert!(member.to_string().len() > 5);
        }
    }
}

#[test]
fn why_a_vm_is_where_it_is_can_be_told() {
    let of = |include: Rules, name: &str| Group { include, ..Group::new(name) };
    let mut web = of(Rules { patterns: texts(&["web*"]), ..Rules::default() }, "web");
    web.exclude.vms = texts(&["web99"]);
    let mut rest = Group::built_in();
    rest.exclude.tags = texts(&["scratch"]);
    let groups = Groups::new(vec![
        web,
        rest,
        of(Rules { folders: texts(&["/prod"]), ..Rules::default() }, "a-prod"),
        of(Rules { folders: texts(&["/prod/db"]), ..Rules::default() }, "db"),
        of(Rules { tags: texts(&["Gold"]), ..Rules::default() }, "gold"),
        of(Rules { vms: texts(&["web01"]), ..Rules::default() }, "one"),
        of(Rules { regexes: texts(&["b[0-9]+"]), ..Rules::default() }, "numbers"),
    ])
    .unwrap();
    let cases: [(&str, Attributes, Option<&str>, &str); 12] = [
        ("web02", attributes("/", &[]), None, "matches 'web*' of group web"),
        ("WEB02", attributes("/", &[]), None, "matches 'web*' of group web"),
        ("web02", attributes("/prod", &[]), None, "is in folder \"/prod\" of group a-prod"),
        ("web02", attributes("/Prod/DB/old", &[]), None, "is in folder \"/prod/db\" of group db"),
        ("web02", attributes("/prod", &["gold"]), None, "has tag \"Gold\" of group gold"),
        ("web01", attributes("/prod", &["gold"]), None, "is VM \"web01\" of group one"),
        ("web01", attributes("/prod", &["gold"]), Some("WEB"), "names group web itself"),
        ("b12", attributes("/", &[]), None, "matches regex 'b[0-9]+' of group numbers"),
        (
            "web99",
            attributes("/", &[]),
            None,
            "is excluded by group web, since it is VM \"web99\": the built-in group default",
        ),
        ("ab12", attributes("/production", &[]), None, "no group matches: the built-in group default"),
        (
            "ab12",
            attributes("/", &["scratch"]),
            None,
            "is excluded by group default, since it has tag \"scratch\": in no group",
        ),
        (
            "ab12",
            attributes("/", &[]),
            Some("silver"),
            "names group silver, which does not exist; no group matches: the built-in group default",
        ),
    ];
    for (name, attributes, group, expected) in &cases {
        let member = groups.of(&Vm { name, attributes, group: *group });
        assert_eq!(member.to_string(), *expected, "{name}");
    }
    let scratch = attributes("/", &["SCRATCH"]);
    let nowhere = groups.of(&Vm { name: "x", attributes: &scratch, group: None });
    assert!(nowhere.place == Place::Nowhere && nowhere.group().is_none());
    let own = groups.of(&Vm { name: "x", attributes: &scratch, group: Some("default") });
    assert!(matches!(own.place, Place::In { rule: Rule::Own, .. }));
    assert_eq!(groups.get("GOLD").map(|group| group.name.as_str()), Some("gold"));
    assert_eq!((groups.all().len(), groups.get("none")), (7, None));
}

#[test]
fn a_thousand_vms_of_a_hundred_groups_are_placed_together() {
    let groups = (0..100).map(|number| {
        let include = Rules {
            patterns: texts(&[&format!("vm{number}-*"), "never-*", "?nor-this*"]),
            regexes: texts(&[&format!("r{number}-.*")]),
            tags: texts(&[&format!("t{number}")]),
            ..Rules::default()
        };
        Group { include, ..Group::new(&format!("g{number}")) }
    });
    let groups = Groups::new(groups.collect()).unwrap();
    let none = attributes("/a/b/c/d", &["x", "y"]);
    for number in 0..1000 {
        let name = format!("{}{}-{number}", if number % 2 == 0 { "vm" } else { "r" }, number % 100);
        let member = groups.of(&Vm { name: &name, attributes: &none, group: None });
        assert_eq!(member.group().unwrap().name, format!("g{}", number % 100));
    }
}
