use super::*;

#[test]
fn the_innermost_and_last_mount_counts() {
    let table = "\
21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /srv rw shared:2 master:1 - btrfs /dev/sdb rw
31 21 0:41 / /srv/inner rw - btrfs /dev/sdc rw
32 21 0:42 / /srv/inner rw - btrfs /dev/sdd rw
broken line
";
    let source = |path: &str| mounted_at(table, Path::new(path)).unwrap();
    assert_eq!(source("/etc/x"), Path::new("/dev/sda1"));
    assert_eq!(source("/srv/medium"), Path::new("/dev/sdb"));
    assert_eq!(source("/srv/innermost"), Path::new("/dev/sdb"), "no path below /srv/inner");
    assert_eq!(source("/srv/inner/medium"), Path::new("/dev/sdd"));
    assert_eq!(mounted_at("", Path::new("/")), None);
}

#[test]
fn partitions_and_stacks_count_as_what_is_below() {
    let sysfs = tempfile::tempdir().unwrap();
    let root = sysfs.path().canonicalize().unwrap();
    for node in ["sda/sda1", "sda/sda2", "sdb", "dm-0/slaves", "md0/slaves", "round/slaves"] {
        std::fs::create_dir_all(root.join(node)).unwrap();
    }
    std::fs::write(root.join("sda/sda1/partition"), "1").unwrap();
    std::fs::write(root.join("sda/sda2/partition"), "2").unwrap();
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(root.join(to), root.join(from)).unwrap();
    link("sda/sda1", "dm-0/slaves/sda1");
    link("dm-0", "md0/slaves/dm-0");
    link("sdb", "md0/slaves/sdb");
    link("round", "round/slaves/round");
    let below = |node: &str| {
        let mut found = BTreeSet::new();
        physical_of_node(&root.join(node), 0, &mut found);
        let names = found.into_iter().map(|node| node.file_name().unwrap().to_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(
        (below("sda"), below("sda/sda2"), below("dm-0")),
        (vec!["sda".into()], vec!["sda".into()], vec!["sda".into()])
    );
    assert_eq!(below("md0"), ["sda", "sdb"]);
    assert_eq!(below("round"), ["round"], "a loop in the table ends");
}
