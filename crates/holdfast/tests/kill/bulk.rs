//! kill -9 while data comes in of shapes that make lists long, at the sizes of a real site: one block a hundred thousand
//! times, and units of some bytes. The next start takes no hand, and the site goes on.

use std::path::Path;

use crate::harness::{Bench, MEDIA, Random, pick, soak, tool};

use super::rig::{How, was_killed};

/// Blocks of an image: several times what one container's map log lists.
const BLOCKS: usize = 102_400;
/// Bytes of a tiny block that are not zero.
const TINY_BYTES: usize = 100;
/// Writes to the first medium that two imports of an image make at least; the last of them are the checkpoint's.
const WRITES: usize = 24;
/// Kills of each shape, and of a soak.
const KILLS: usize = 2;

fn make(shape: &str, image: &Path) {
    let mut contents = vec![0xff; BLOCKS * 4096];
    if shape == "tiny" {
        let mut random = Random(9);
        contents.fill(0);
        contents.truncate(BLOCKS / 4 * 4096);
        for block in contents.chunks_exact_mut(4096) {
            block[..TINY_BYTES].copy_from_slice(&random.bytes(TINY_BYTES));
        }
    }
    std::fs::write(image, contents).unwrap();
}

/// Imports the image twice on a server that is killed at the `nth` write to a medium; gives whether it came to that.
fn killed(shape: &str, nth: usize) -> bool {
    let case = format!("{shape}, write {nth}");
    let bench = Bench::new();
    let image = bench.path("image");
    let text = image.to_str().unwrap();
    make(shape, &image);
    assert!(bench.start(MEDIA).stop("TERM").success());
    let how = How { io: "ring", fault: Some(format!("write:{nth}:kill@00.img")), ..How::default() };
    let mut server = how.spawn(&bench);
    let mut done = Vec::new();
    if server.wait_serving().is_ok() {
        done.extend(["a", "b"].into_iter().filter(|vm| bench.json(&["vm", "import", vm, text]).code == 0));
    }
    let fired = done.len() < 2 && was_killed(server.ended());
    if !fired {
        server.kill();
    }
    let _server = bench.start(&[]);
    let list = bench.json(&["vm", "list"]).json();
    let listed: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap()).collect();
    assert!(done.iter().all(|vm| listed.contains(vm)), "{case}: {done:?} of {listed:?}");
    bench.json(&["vm", "import", "after", text]).json();
    for vm in listed.into_iter().chain(["after"]) {
        let out = bench.path(&format!("{vm}.out"));
        bench.json(&["vm", "export", vm, out.to_str().unwrap()]).json();
        tool("cmp", [&image, &out]);
    }
    assert_eq!(bench.json(&["status"]).json()["health"], "ok", "{case}");
    fired
}

#[test]
fn kill_while_tiny_blocks_come_in() {
    let kills = if soak() { WRITES } else { KILLS };
    for shape in ["fill", "tiny"] {
        let step = WRITES / kills;
        let points = (1 + pick() % step..=WRITES).step_by(step);
        let fired = points.filter(|nth| killed(shape, *nth)).count();
        assert!(fired > 0, "{shape}: no kill struck");
    }
}
