//! Files of a VM in and out.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use api::types::{NewExport, NewFile, TaskKind};
use api::{FileName, Version, VmName, code};

use super::program::{Target, blocking};
use super::stream::{self, Growing, Input, Output};
use super::{Counter, Signals, Transfer, export_of};
use crate::failure::Failure;

impl Transfer<'_> {
    /// Stores a file with a VM. An error leaves nothing of it.
    pub(crate) async fn put(
        &self,
        vm: &VmName,
        name: &FileName,
        file: PathBuf,
        replace: bool,
    ) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let source = file.display().to_string();
        let input = match file.as_os_str() == "-" {
            true => Input::stdin(Vec::new()),
            false => Input::File(Arc::new(blocking(&self.rt, "file", move || open(&file)).await??)),
        };
        let bytes = input.bytes()?;
        let new = NewFile { name: name.to_string(), source, replace };
        let begun = self.client.begin_file(vm.as_str(), &new).await.map_err(|error| self.failed(error))?;
        let counter = Arc::new(Counter::default());
        counter.set(0, bytes.unwrap_or(0));
        let work = async {
            let export = export_of(&begun)?;
            stream::import(self, &export, &input, Growing::File { vm, name }, bytes, &counter).await
        };
        self.watched(&begun.task, &counter, &mut signals, work).await?;
        if let Err(error) = self.client.finish(TaskKind::Import, begun.task.id).await {
            let failure = self.failed(error);
            // What was stored is of no use: the site clears it away.
            let told = self.client.cancel_task(begun.task.id).await;
            tracing::debug!(?told, "a file that could not be kept");
            return Err(failure);
        }
        let vm = self.client.vm(vm.as_str()).await.map_err(|error| self.failed(error))?;
        self.printer.vm(&vm, &self.socket)
    }

    /// Writes a file to another, or to standard output.
    pub(crate) async fn get(&self, from: &Version, name: &FileName, file: PathBuf) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let target = if file.as_os_str() == "-" { None } else { Some(Target::new(&file)?) };
        let destination = target.as_ref().map_or("standard output".to_owned(), |target| target.name());
        let new = NewExport { vm: from.to_string(), disk: Some(name.to_string()), destination };
        let begun = self.client.begin_export(&new).await.map_err(|error| self.failed(error))?;
        let counter = Arc::new(Counter::default());
        counter.set(0, begun.task.total_bytes);
        let work = async {
            let output = match &target {
                Some(target) => Output::File(target.file()?),
                None => Output::Stdout,
            };
            let bytes = Some(begun.task.total_bytes);
            stream::export(self, &export_of(&begun)?, output, bytes, &counter).await?;
            target.as_ref().map_or(Ok(()), Target::keep)
        };
        self.watched(&begun.task, &counter, &mut signals, work).await?;
        let task =
            self.client.finish(TaskKind::Export, begun.task.id).await.map_err(|error| self.failed(error))?;
        // What was written has standard output for itself.
        if target.is_some() { self.printer.task(&task) } else { Ok(()) }
    }
}

fn open(path: &std::path::Path) -> Result<File, Failure> {
    let failed = |error: std::io::Error| Failure::of_io(code::FILE_ERROR, path.display(), &error);
    let file = File::open(path).map_err(failed)?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            Err(Failure::of_code(code::FILE_ERROR, format!("{}: it is a directory", path.display())))
        }
        Ok(_) => Ok(file),
        Err(error) => Err(failed(error)),
    }
}
