//! Goal: every command, in every form, on success and on error, says what the published types promise.
//! Model: the leaves of the command line are taken from docs/cli.md, the types from the interface's description.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Bench, Ran, TINY, program, tool};

const CLI: &str = include_str!("../../../docs/cli.md");

/// One command: its words, arguments that do it and the type of its answer, arguments that fail.
struct Walk {
    words: &'static str,
    good: &'static [&'static str],
    answer: &'static str,
    bad: &'static [&'static str],
}

const fn walk(
    words: &'static str,
    good: &'static [&'static str],
    answer: &'static str,
    bad: &'static [&'static str],
) -> Walk {
    Walk { words, good, answer, bad }
}

/// In this order for each form, on a new site with a VM `a` of two disks; @ is the bench's folder.
const WALKS: &[Walk] = &[
    walk("status", &[], "Status", &["--timeout", "0"]),
    walk("vm create", &["n", "--disk", "1M"], "Vm", &["n/", "--disk", "1M"]),
    walk("vm list", &[], "List_VmSummary", &["web["]),
    walk("vm show", &["n"], "Vm", &["x"]),
    walk("vm folder", &["n", "/prod/web"], "Vm", &["n", "prod"]),
    walk("vm tag", &["n", "add", "gold", "db"], "Vm", &["n", "add", "a b"]),
    walk("vm label", &["n", "set", "owner=ops, 2nd"], "Vm", &["n", "set", "owner"]),
    walk("vm rename", &["n", "m"], "Vm", &["a", "n"]),
    walk("vm set-definition", &["m", "@/text"], "Vm", &["m", "@/none"]),
    walk("vm definition", &["m"], "Definition", &["a"]),
    walk("vm import", &["i", "@/image"], "Vm", &["i", "@/none"]),
    walk("vm export", &["i", "@/out"], "Task", &["i", "@/image"]),
    walk("task list", &[], "List_Task", &["more"]),
    walk("task show", &["1"], "Task", &["99"]),
    walk("task cancel", &["3"], "Task", &["1"]),
    walk("disk add", &["m", "1M"], "Vm", &["x", "1M"]),
    walk("disk resize", &["m/disk1", "2M"], "Vm", &["m/disk1", "512K"]),
    walk("disk attach-info", &["m/disk1"], "AttachInfo", &["m/disk9"]),
    walk("disk remove", &["m/disk1", "--yes"], "Deleted", &["m/disk9", "--yes"]),
    walk("file put", &["m", "@/text"], "Vm", &["m", "@/none"]),
    walk("file list", &["m"], "List_SnapshotDisk", &["m@s1"]),
    walk("file get", &["m/text", "@/got"], "Task", &["m/none", "@/got"]),
    walk("file clone", &["m/text", "a"], "Vm", &["m/text", "m"]),
    walk("file attach-info", &["m/text"], "AttachInfo", &["m/disk0"]),
    walk("file delete", &["m/text", "--yes"], "Deleted", &["m/text"]),
    walk("vm snapshot", &["a"], "Snapshot", &["x"]),
    walk("snapshot list", &["--vm", "a"], "Snapshots", &["--vm", "x"]),
    walk("snapshot show", &["a@s1"], "Snapshot", &["a@s9"]),
    walk("snapshot rename", &["a@s1", "good"], "Snapshot", &["a@s9", "good"]),
    walk("snapshot diff", &["a@good", "a"], "Diff", &["a@good", "m"]),
    walk("vm clone", &["a@good", "c"], "Vm", &["a@s9", "c"]),
    walk("disk clone", &["a@good/disk1", "c"], "Vm", &["a@good", "c"]),
    walk("vm revert", &["a@good", "--yes"], "Reverted", &["a@good"]),
    walk("space", &[], "Space", &["a@s9"]),
    walk("verify", &[], "Task", &["more"]),
    walk("clock show", &[], "Clock", &["more"]),
    walk("clock accept", &["--yes"], "Clock", &[]),
    walk("key show", &[], "Keys", &["more"]),
    walk("key rotate", &[], "Task", &["more"]),
    walk(
        "passphrase change",
        &["--current-file", "@/phrase", "--new-file", "@/next"],
        "Keys",
        &["--current-file", "@/next", "--new-file", "@/phrase"],
    ),
    walk("scrub start", &[], "Task", &["more"]),
    walk("scrub show", &[], "Scrubbing", &["more"]),
    walk("scrub every", &["12h"], "Scrubbing", &["1s"]),
    walk("snapshot delete", &["a@good", "--yes"], "Deleted", &["a@good"]),
    walk("snapshot hold", &["a@s2", "--until", "1s"], "Snapshot", &["a@s2", "--until", "now"]),
    walk("vm delete", &["m", "--yes"], "Deleted", &["a"]),
    walk("trash list", &[], "Trash", &["more"]),
    walk("trash restore", &["m", "--as", "back"], "Restored", &["x"]),
    walk("trash empty", &["a@good", "--yes"], "List_Deleted", &["a@good", "--yes", "--as", "x"]),
    walk("trash keep", &["2d"], "TrashSetting", &["long"]),
    walk("clean", &["--garbage", "0"], "Task", &["--garbage", "101"]),
    walk("media list", &[], "List_Medium", &["more"]),
    walk("media add", &["@/extra", "--file", "16M"], "List_Medium", &["@/none"]),
    walk("media drain", &["extra", "--yes"], "Task", &["extra"]),
    walk("media replace", &["01.img", "@/new", "--file", "16M", "--yes"], "Task", &["01.img", "@/none"]),
    walk("explain", &["vm_in_use"], "Explanation", &["nothing"]),
    walk("completion", &["bash"], "Script", &["nosh"]),
    walk("group create", &["w", "--match", "a*", "--every", "1h", "--keep-last", "3"], "Group", &["w["]),
    walk("group set", &["w", "--exclude", "ab*"], "Group", &["none", "--tag", "x"]),
    walk("group list", &[], "List_Group", &["more"]),
    walk("group show", &["w"], "Group", &["none"]),
    walk("group preview", &["w"], "List_Membership", &["none"]),
    walk("group simulate", &["w", "--days", "3"], "List_Outlook", &["w", "--days", "0"]),
    walk("group run", &["w"], "Point", &["w", "--schedule", "none"]),
    walk("group pause", &["w"], "Group", &["none"]),
    walk("group resume", &["w"], "Group", &["none"]),
    walk("group rename", &["w", "v"], "Group", &["default", "v"]),
    walk(
        "group schedule add",
        &["v", "--name", "n", "--cron", "0 2 * * *", "--keep", "daily=7"],
        "Group",
        &["v", "--name", "m", "--cron", "61 * * * *", "--keep-last", "1"],
    ),
    walk(
        "group schedule set",
        &["v", "--name", "n", "--every", "12h", "--keep-last", "2"],
        "Group",
        &["v", "--name", "none", "--every", "12h", "--keep-last", "2"],
    ),
    walk("group schedule remove", &["v", "--name", "n"], "Group", &["v", "--name", "none"]),
    walk("group export", &["v"], "GroupsFile", &["none"]),
    walk("group apply", &["--file", "@/groups", "--dry-run"], "List_GroupChange", &["--file", "@/text"]),
    walk("point list", &["--vm", "a"], "Points", &["--since", "some day"]),
    walk("point show", &["POINT"], "Point", &["1"]),
    walk("restore", &["a", "--as", "r"], "RestoredVms", &["a", "--as", "a"]),
    walk("point delete", &["POINT", "--yes"], "List_Deleted", &["1", "--yes"]),
    walk("point hold", &["POINT", "--until", "1s"], "Point", &["POINT", "--until", "now"]),
    walk("group delete", &["v", "--yes"], "Deleted", &["default", "--yes"]),
    walk("standalone", &[], "Serving", &["--io", "never"]),
    walk(
        "site recover",
        &["--dir", "@/e", "--from-media", "--recovery-key-file", "@/key"],
        "Recovered",
        &["--dir", "@/e", "--from-media", "--recovery-key-file", "@/none"],
    ),
];

/// Commands of a site of many nodes, which need etcd: `etcd` walks them.
const OF_MANY_NODES: &[&str] = &[
    "compute",
    "data",
    "join",
    "manager",
    "node add",
    "node add-client",
    "node drain",
    "node list",
    "node remove",
    "site found",
    "site restore",
];

/// The types of the description.
pub(crate) struct Types(Value);

impl Types {
    pub(crate) fn published() -> Self {
        Self(serde_json::from_str(&rest::openapi()).unwrap())
    }

    pub(crate) fn check(&self, name: &str, value: &Value, what: &str) {
        let root = &self.0["components"]["schemas"];
        assert!(root[name].is_object(), "{name} is no type of the description");
        let schema = json!({"$ref": format!("#/components/schemas/{name}"), "components": {"schemas": root}});
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let wrong: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{what}: not a {name}: {wrong:?}: {value}");
    }
}

pub(crate) fn parse(text: &str, form: &str) -> Value {
    let parsed = match form {
        "json" => serde_json::from_str(text).map_err(|error| error.to_string()),
        _ => serde_norway::from_str(text).map_err(|error| error.to_string()),
    };
    parsed.unwrap_or_else(|error| panic!("{form}: {error}: {text}"))
}

/// The commands of the page that have none below them.
fn leaves() -> BTreeSet<String> {
    let names: Vec<&str> = CLI.lines().filter_map(|line| line.strip_prefix("## holdfast ")).collect();
    let is_leaf = |name: &&str| !names.iter().any(|other| other.starts_with(&format!("{name} ")));
    names.iter().copied().filter(is_leaf).map(str::to_owned).collect()
}

/// A server's word when it serves.
fn serving(form: &str) -> String {
    let bench = Bench::new();
    let said = bench.path("said");
    let mut command = bench.standalone(&[], &[TINY, &["-o", form, "--log", "error"]].concat());
    let mut child =
        command.stdout(std::fs::File::create(&said).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let text = loop {
        let text = std::fs::read_to_string(&said).unwrap();
        if text.ends_with('\n') {
            break text;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "it does not serve");
        std::thread::sleep(Duration::from_millis(10));
    };
    tool("kill", [child.id().to_string()]);
    assert!(child.wait().unwrap().success());
    text
}

/// A site that was stopped, of which the media and the recovery key are left: at `e/media` and `key`.
fn lose_a_site(bench: &Bench) {
    let other = Bench::new();
    let key = bench.path("key").display().to_string();
    let server = other.start(&[TINY, &["--recovery-key-file", &key]].concat());
    assert!(server.stop("TERM").success());
    std::fs::create_dir(bench.path("e")).unwrap();
    let (from, to) = (other.dir().join("media"), bench.path("e/media"));
    tool("cp", ["-r", "--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()]);
}

/// An import from a pipe that does not end, until it is cancelled: the third task.
fn cancelled(bench: &Bench, good: &[&str], form: &str) -> String {
    let mut import = Command::new(program());
    import.args(["--site", bench.dir().to_str().unwrap(), "vm", "import", "stuck", "-", "--size", "1M"]);
    import.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut import = import.spawn().unwrap();
    // It begins with the first bytes, which tell that they are a disk's.
    std::io::Write::write_all(import.stdin.as_mut().unwrap(), &[7; 4096]).unwrap();
    let start = Instant::now();
    while bench.json(&["task", "show", good[0]]).code != 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "the import does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    let ran = run(bench, "task cancel", good, form);
    assert_eq!(ran.code, 0, "{ran:?}");
    // Its pipe is open until here: the task did not end by itself.
    drop(import.stdin.take());
    assert_eq!(import.wait().unwrap().code(), Some(6));
    assert_eq!(bench.json(&["vm", "show", "stuck"]).code, 4);
    ran.stdout
}

fn run(bench: &Bench, words: &str, arguments: &[&str], form: &str) -> Ran {
    let folder = bench.path("").display().to_string();
    let newest = || {
        if words == "point hold" {
            // The one before was deleted.
            bench.json(&["group", "run", "v"]).json();
        }
        let points = bench.json(&["point", "list"]).json();
        points["items"][0]["id"].to_string()
    };
    let filled = |word: &&str| if *word == "POINT" { newest() } else { word.replace("@/", &folder) };
    let arguments: Vec<String> = arguments.iter().map(filled).collect();
    let mut command = Command::new(program());
    command.env_remove("HOLDFAST_SITE").arg("--site").arg(bench.dir());
    command.args(words.split(' ')).args(arguments).args(["-o", form]).stdin(Stdio::null());
    if words == "standalone" {
        command.arg("--dir").arg(bench.path("other"));
    }
    Ran::new(command.output().unwrap())
}

#[test]
fn every_command_keeps_to_the_published_types() {
    let mut walked: BTreeSet<String> = WALKS.iter().map(|walk| walk.words.to_owned()).collect();
    walked.extend(OF_MANY_NODES.iter().map(|&words| words.to_owned()));
    assert_eq!(walked, leaves(), "every command is walked");
    let types = Types::published();
    for form in ["json", "yaml", "table"] {
        let bench = Bench::new();
        lose_a_site(&bench);
        std::fs::write(bench.path("phrase"), "a phrase\n").unwrap();
        std::fs::write(bench.path("next"), "another phrase\n").unwrap();
        let phrase = bench.path("phrase").display().to_string();
        let _server = bench.start(&[TINY, &["--passphrase-file", &phrase]].concat());
        bench.json(&["vm", "create", "a", "--disk", "1M", "--disk", "1M"]).json();
        std::fs::write(bench.path("text"), "yes: no\n  # \u{e4}\n").unwrap();
        std::fs::write(bench.path("image"), [7; 20_000]).unwrap();
        std::fs::write(bench.path("groups"), "groups:\n- name: default\n- name: u\n").unwrap();
        for Walk { words, good, answer, bad } in WALKS {
            let what = format!("{words} -o {form}");
            let ran = run(&bench, words, bad, form);
            assert!(ran.code != 0 && ran.stdout.is_empty(), "{what}: {ran:?}");
            if form == "table" {
                assert!(ran.stderr.starts_with("error: "), "{what}: {ran:?}");
            } else {
                types.check("Failure", &parse(&ran.stderr, form), &what);
            }
            let said = match *words {
                "standalone" => serving(form),
                "task cancel" => cancelled(&bench, good, form),
                _ => {
                    let ran = run(&bench, words, good, form);
                    assert_eq!(ran.code, 0, "{what}: {ran:?}");
                    ran.stdout
                }
            };
            if form == "table" {
                assert!(!said.trim().is_empty() && !said.starts_with('{'), "{what}: {said}");
            } else {
                types.check(answer, &parse(&said, form), &what);
            }
        }
    }
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let bench = Bench::new();
    let folder = bench.path("man");
    let mut command = Command::new(program());
    let ran = Ran::new(command.args(["man", folder.to_str().unwrap(), "-o", "json"]).output().unwrap());
    let types = Types::published();
    types.check("Written", &ran.json(), "man");
    for leaf in leaves() {
        let page = folder.join(format!("holdfast-{}.1", leaf.replace(' ', "-")));
        let page = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{leaf}: {error}"));
        assert!(page.contains("Example"), "{leaf}");
    }
}
