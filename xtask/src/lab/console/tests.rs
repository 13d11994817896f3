//! Model: `sh` on a pipe stands in for the guest; a loop that repeats its input for one that only echoes.

use std::process::{Child, ChildStdin, Command, Stdio};

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn shell(name: &str, script: &str) -> (Child, Console<ChildStdin>) {
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh runs");
    let transcript = std::env::temp_dir().join(format!("holdfast-console-{}-{name}", std::process::id()));
    let input = child.stdin.take().expect("stdin is piped");
    let output = child.stdout.take().expect("stdout is piped");
    let console = Console::new(input, output, &transcript).expect("the transcript opens");
    std::fs::remove_file(transcript).expect("the transcript is there");
    (child, console)
}

#[test]
fn commands_give_output_and_exit_code() {
    let (mut child, mut console) = shell("plain", "exec sh");
    assert_eq!(console.run("echo one; echo two", SOON).expect("echo works"), "one\ntwo");
    assert_eq!(console.run("printf unended", SOON).expect("printf works"), "unended");
    assert_eq!(console.run("true", SOON).expect("true works"), "");
    let Err(crate::Failure::Failed(why)) = console.run("echo why; (exit 3)", SOON) else {
        panic!("exit code 3 passed for success");
    };
    assert!(why.contains("exit code 3") && why.contains("\nwhy"), "{why}");
    child.kill().expect("the shell runs");
    child.wait().expect("the shell ended");
}

#[test]
fn an_echo_is_not_taken_for_the_answer() {
    let (mut child, mut console) = shell("echo", "while read -r line; do printf '%s\\r\\n' \"$line\"; done");
    assert!(
        console.run("true", Duration::from_millis(300)).is_err(),
        "the echoed command passed for its end"
    );
    child.kill().expect("the loop runs");
    child.wait().expect("the loop ended");
}

#[test]
fn waiting_ends_with_the_limit_or_the_line() {
    let (mut child, mut console) = shell("wait", "echo first; sleep 0.1; echo @mark 7; exec sleep 60");
    let found = console.wait_for("@mark ", SOON).expect("the mark comes");
    assert_eq!(found, ("7".to_owned(), vec!["first".to_owned()]));
    assert!(console.wait_for("@mark ", Duration::from_millis(50)).is_err());
    child.kill().expect("sleep runs");
    child.wait().expect("sleep ended");
    assert_eq!(console.next_line(SOON).expect("reading works"), None, "a closed line has no more");
}
