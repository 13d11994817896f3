//! Commands about folders, tags and labels.

use std::collections::BTreeMap;

use api::types::{ChangeAttributes, ListVms};
use api::{Error, VmName, code};

use super::Asking;
use crate::arguments::{LabelAct, TagAct, WhichVms};
use crate::failure::Failure;

impl Asking {
    pub(super) async fn list_vms(&self, which: WhichVms) -> Result<(), Failure> {
        let WhichVms { like, tag, folder, label } = which;
        let tag = Some(tag.join(",")).filter(|_| !tag.is_empty());
        let which = ListVms { name: like, tag, folder, label };
        self.printer.vms(&self.client.vms(&which).await.map_err(|error| self.failed(error))?)
    }

    pub(super) async fn set_folder(&self, name: &str, folder: String) -> Result<(), Failure> {
        let folder = Some(folder);
        self.change_attributes(name, &ChangeAttributes { folder, ..ChangeAttributes::default() }).await
    }

    pub(super) async fn change_tags(
        &self,
        name: &str,
        act: TagAct,
        tags: Vec<String>,
    ) -> Result<(), Failure> {
        let none = ChangeAttributes::default();
        let change = match act {
            TagAct::Add => ChangeAttributes { add_tags: tags, ..none },
            TagAct::Remove => ChangeAttributes { remove_tags: tags, ..none },
        };
        self.change_attributes(name, &change).await
    }

    pub(super) async fn change_labels(
        &self,
        name: &str,
        act: LabelAct,
        labels: Vec<String>,
    ) -> Result<(), Failure> {
        let none = ChangeAttributes::default();
        let change = match act {
            LabelAct::Remove => ChangeAttributes { remove_labels: labels, ..none },
            LabelAct::Set => {
                let pair = |label: String| {
                    let pair = label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
                    pair.ok_or_else(|| {
                        Error::new(code::INVALID_REQUEST, format!("{label:?} has no value"))
                            .hint("give it as KEY=VALUE")
                    })
                };
                let set_labels: BTreeMap<_, _> = labels.into_iter().map(pair).collect::<api::Result<_>>()?;
                ChangeAttributes { set_labels, ..none }
            }
        };
        self.change_attributes(name, &change).await
    }

    async fn change_attributes(&self, name: &str, change: &ChangeAttributes) -> Result<(), Failure> {
        let name = VmName::parse(name)?;
        let vm = self.client.change_attributes(name.as_str(), change).await;
        self.printer.vm(&vm.map_err(|error| self.failed(error))?, &self.socket)
    }
}
