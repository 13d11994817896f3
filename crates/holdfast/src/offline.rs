//! Commands that need no site: what codes mean, completion of command lines, the manual.

use std::io::Write;
use std::path::Path;

use api::types::{Explanation, List, Script, Written};
use api::{Code, code};
use clap::CommandFactory;
use machine::Aside;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output::Printer;

/// Says what a code means, or lists all.
pub(crate) fn explain(code: Option<&str>, printer: Printer) -> Result<(), Failure> {
    let Some(code) = code else {
        return printer.explanations(&List { items: Code::all().iter().copied().map(explanation).collect() });
    };
    let unknown = || {
        let shown: String = code.chars().filter(|c| !c.is_control()).take(64).collect();
        Failure::of_code(code::UNKNOWN_CODE, format!("no error has the code {shown:?}"))
    };
    printer.explanation(&explanation(Code::find(code).ok_or_else(unknown)?))
}

fn explanation(code: &Code) -> Explanation {
    Explanation {
        code: code.name.to_owned(),
        title: code.title.to_owned(),
        cause: code.cause.to_owned(),
        next: code.next.to_owned(),
        status: (code.status != 0).then_some(code.status),
        exit: code.exit,
    }
}

/// Prints a shell's script.
pub(crate) fn completion(shell: clap_complete::Shell, printer: Printer) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "holdfast", &mut script);
    let script =
        String::from_utf8(script).map_err(|error| Failure::failed(code::OUTPUT, error.to_string()))?;
    printer.plain(&Script { script: script.clone() }, &script)
}

/// Puts a page in the place of the one before, whole.
fn put(path: &Path, page: &[u8]) -> std::io::Result<()> {
    let aside = Aside::new(path, 0o666)?;
    aside.file().write_all(page)?;
    aside.replace()
}

/// Writes the pages of the manual, one for each command.
pub(crate) fn man(dir: &Path, printer: Printer) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| Failure::of_io(code::OUTPUT, path.display(), &error);
    std::fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    let mut root = Arguments::command();
    root.build();
    let mut written = Vec::new();
    let mut waiting = vec![("holdfast".to_owned(), root)];
    while let Some((name, command)) = waiting.pop() {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            waiting.push((format!("{name}-{}", below.get_name()), below.clone()));
        }
        let path = dir.join(format!("{name}.1"));
        let mut page = Vec::new();
        let rendered =
            clap_mangen::Man::new(command.display_name(name.clone())).title(name).render(&mut page);
        rendered.and_then(|()| put(&path, &page)).map_err(|error| failed(&path, error))?;
        written.push(path.display().to_string());
    }
    written.sort();
    let text = format!("{} pages written to {}", written.len(), dir.display());
    printer.done(&Written { written }, &text)
}
