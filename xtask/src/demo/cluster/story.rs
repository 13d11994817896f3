//! The story of the many nodes, from founding to the last comparison.

use std::time::{Duration, Instant};

use super::nodes::{COMPUTE, DATA, LATE, Node, Nodes, medium_name};
use super::pulse::{FOLDER, Pulse, no_trouble};
use crate::demo::machine::Machine;
use crate::lab::{Image, Progress, Stage};
use crate::process::seconds;
use crate::{Result, failed};

const VM: &str = "base01";
const EXPORT: &str = "base01/disk0";
/// The hosts: the guest runs on the second, the first serves the site at the start.
const FIRST: Node = COMPUTE[0];
const SECOND: Node = COMPUTE[1];
const MEDIA_EACH: usize = 2;
/// How long a node that was killed stays away.
const AWAY: Duration = Duration::from_secs(4);
/// How long the cable is out.
const CUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(200);
const HEALTHY_LIMIT: Duration = Duration::from_secs(90);
const ASK_LIMIT: Duration = Duration::from_secs(10);
const LONG_LIMIT: Duration = Duration::from_secs(300);

/// Tells it. An error says which promise was broken.
pub(super) fn tell(stage: &Stage, image: &Image, progress: &mut Progress) -> Result {
    progress.step(
        "a site in network namespaces: 3 etcd, a manager, 3 data nodes with 2 media each, 2 compute nodes",
    );
    let nodes = found(stage, progress)?;
    progress.step("a VM is imported, boots on the second compute node, and writes");
    let disk = image.disk.to_str().ok_or_else(|| failed("the image's path is no text"))?;
    nodes.cli(SECOND, &["vm", "import", VM, disk, "-f", "raw"], LONG_LIMIT)?;
    progress.note("imported");
    let socket = nodes.disks(SECOND);
    let mut guest = Machine::boot_patient(image, EXPORT, &socket, &stage.logs.join("guest-first.log"))?;
    let pulse = Pulse::start(&mut guest.console)?;
    progress.note("the guest runs and writes");

    let mut run = Run { nodes, guest, pulse, paused: Vec::new() };
    run.events(progress)?;

    progress.step("the guest stops writing; what its kernel and the site say");
    let Run { nodes, mut guest, mut pulse, paused } = run;
    pulse.stop(&mut guest.console)?;
    no_trouble(&mut guest.console)?;
    progress.note("the guest's kernel met no error with its disk");
    guest.power_off()?;
    nodes.cli(FIRST, &["verify"], LONG_LIMIT)?;
    progress.note("verify opened every block: nothing is lost");

    progress.step("the guest boots on the first compute node and compares");
    let socket = nodes.disks(FIRST);
    let mut guest = Machine::boot_patient(image, EXPORT, &socket, &stage.logs.join("guest-moved.log"))?;
    pulse.promised.check(&mut guest.console, &[FOLDER])?;
    no_trouble(&mut guest.console)?;
    progress.note(&format!("all {} promised files are there, checksums equal", pulse.promised.len()));
    progress.note("the longest pause the guest saw:");
    for (pause, what) in paused {
        progress.note(&format!("{:>7}  {what}", seconds(pause)));
    }
    Ok(())
}

/// Founds the site and waits until it is served.
fn found<'a>(stage: &'a Stage, progress: &Progress) -> Result<Nodes<'a>> {
    let mut nodes = Nodes::new(stage)?;
    nodes.found()?;
    progress.note("etcd and the manager run");
    for node in DATA {
        nodes.join(node, MEDIA_EACH)?;
    }
    nodes.join(FIRST, 0)?;
    healthy(&nodes, FIRST)?;
    nodes.join(SECOND, 0)?;
    healthy(&nodes, SECOND)?;
    progress.note(&format!("{} serves the site, {} hands on to it", nodes.serving()?.0.name, SECOND.name));
    Ok(nodes)
}

/// Waits until the site is served and healthy, asked at this compute node; gives the time that took.
fn healthy(nodes: &Nodes<'_>, at: Node) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let status = nodes.cli(at, &["status"], ASK_LIMIT);
        match status {
            Ok(text) if health(&text) == Some("ok") => return Ok(start.elapsed()),
            _ if start.elapsed() < HEALTHY_LIMIT => {}
            Ok(text) => return Err(failed(format!("the site does not get healthy:\n{text}"))),
            Err(error) => return Err(error),
        }
        std::thread::sleep(POLL);
    }
}

/// What `status` says of the site's health.
fn health(status: &str) -> Option<&str> {
    status.lines().find_map(|line| line.strip_prefix("health")).map(str::trim)
}

/// The site and the guest while things fail.
struct Run<'a> {
    nodes: Nodes<'a>,
    guest: Machine,
    pulse: Pulse,
    paused: Vec<(Duration, String)>,
}

impl Run<'_> {
    fn events(&mut self, progress: &mut Progress) -> Result {
        self.event("nothing fails", progress, |run| run.listen(AWAY))?;
        let [data, ..] = DATA;
        self.event("kill -9 of a data node, started again after 4 s", progress, |run| {
            run.nodes.kill(data)?;
            run.listen(AWAY)?;
            run.nodes.start(data)
        })?;
        self.event("kill -9 of etcd's leader, started again after 4 s", progress, |run| {
            let leader = run.nodes.leader()?;
            run.nodes.kill(leader)?;
            run.listen(AWAY)?;
            run.nodes.start(leader)
        })?;
        // First the other host serves, then the guest's own; after that either may.
        self.event_serving("is cut off for 15 s", progress, |run, serving, epoch| {
            run.nodes.network.cut(serving.name)?;
            run.listen(CUT)?;
            run.nodes.network.mend(serving.name)?;
            run.served_after(epoch)
        })?;
        self.event_serving("gets kill -9 and is started again at once", progress, |run, serving, epoch| {
            run.nodes.kill(serving)?;
            run.nodes.start(serving)?;
            run.served_after(epoch)
        })?;
        self.event_serving("gets kill -9; the other one takes over", progress, |run, serving, epoch| {
            run.nodes.kill(serving)?;
            run.served_after(epoch)?;
            run.nodes.start(serving)
        })?;
        self.event("a fourth data node joins, and its medium the site", progress, |run| {
            run.nodes.join(LATE, 1)?;
            let medium = format!("{}:{}", LATE.name, run.nodes.medium(LATE, 0).display());
            run.nodes.cli(SECOND, &["media", "add", &medium], LONG_LIMIT).map(drop)
        })?;
        self.event("a medium of the first data node is drained", progress, |run| {
            let medium = medium_name(data, 0);
            run.nodes.cli(SECOND, &["media", "drain", &medium, "--yes"], LONG_LIMIT).map(drop)
        })
    }

    /// Something happens while the guest writes. It is over when the site is healthy and the guest's writes go on.
    fn event(
        &mut self,
        what: &str,
        progress: &mut Progress,
        happens: impl FnOnce(&mut Self) -> Result,
    ) -> Result {
        progress.step(what);
        let before = self.pulse.mark(&mut self.guest.console)?;
        happens(self)?;
        let took = healthy(&self.nodes, SECOND)?;
        self.pulse.go_on(&mut self.guest.console)?;
        let pause = self.pulse.longest(before);
        progress.note(&format!(
            "the guest paused for {} at most; healthy {} later; {} serves; {} files promised so far",
            seconds(pause),
            seconds(took),
            self.nodes.serving()?.0.name,
            self.pulse.promised.len()
        ));
        self.paused.push((pause, what.to_owned()));
        Ok(())
    }

    fn listen(&mut self, time: Duration) -> Result {
        self.pulse.listen(&mut self.guest.console, time)
    }

    /// Something happens to the compute node that serves, in the epoch in which it does.
    fn event_serving(
        &mut self,
        what: &str,
        progress: &mut Progress,
        happens: impl FnOnce(&mut Self, Node, u64) -> Result,
    ) -> Result {
        let (serving, epoch) = self.nodes.serving()?;
        let place = if serving.name == SECOND.name { "the guest's own host" } else { "not the guest's host" };
        let what = format!("{}, which serves ({place}), {what}", serving.name);
        self.event(&what, progress, |run| happens(run, serving, epoch))
    }

    /// Waits until the site is served in a later epoch than this.
    fn served_after(&mut self, epoch: u64) -> Result {
        let start = Instant::now();
        while self.nodes.serving()?.1 <= epoch {
            if start.elapsed() > HEALTHY_LIMIT {
                return Err(failed("no compute node takes over"));
            }
            self.listen(POLL)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_a_word_of_status() {
        assert_eq!(health("health        ok\ncan lose now  2 media"), Some("ok"));
        assert_eq!(health("error: nobody serves"), None);
    }
}
