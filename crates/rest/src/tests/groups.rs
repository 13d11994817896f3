//! Protection groups, points and restores.

use api::types::{
    GroupSpec, HowToSet, Keep, ListPoints, NewRestore, NewRun, ProtectionState, Rules, Schedule,
};

use super::typed::{SOON, new_vm};
use super::{Bench, code};

fn hourly(name: &str, pattern: &str) -> GroupSpec {
    GroupSpec {
        name: name.to_owned(),
        zone: "UTC".to_owned(),
        include: Rules { match_names: vec![pattern.to_owned()], ..Rules::default() },
        schedules: vec![Schedule {
            name: "main".to_owned(),
            every: Some("100d".to_owned()),
            keep: Keep { last: 3, ..Keep::default() },
            ..Schedule::default()
        }],
        ..GroupSpec::default()
    }
}

#[test]
fn every_call_reaches_its_route() {
    let bench = Bench::new();
    let client = bench.client(SOON);
    bench.runtime.block_on(async {
        for name in ["web01", "web02", "db01"] {
            client.create_vm(&new_vm(name)).await.unwrap();
        }
        let spec = hourly("web", "web*");
        let would = client.preview_group("web", Some(&spec)).await.unwrap();
        assert_eq!(would.items.len(), 2);
        let made = client.create_group(&spec).await.unwrap();
        assert_eq!((made.members, &made.spec), (2, &spec));
        assert_eq!(code(client.create_group(&spec).await), "group_exists");
        assert_eq!(client.group("WEB").await.unwrap(), made);
        let names: Vec<String> =
            client.groups().await.unwrap().items.into_iter().map(|group| group.spec.name).collect();
        assert_eq!(names, ["default", "web"]);
        let members = client.preview_group("web", None).await.unwrap().items;
        assert!(members[0].vm == "web01" && members[0].why.contains("web*"), "{members:?}");
        let outlook = client.simulate_group("web", 300).await.unwrap().items;
        assert_eq!((outlook[0].made, outlook[0].at_end), (3, 3));
        let point = client.run_group("web", &NewRun::default()).await.unwrap();
        assert_eq!((point.members.len(), point.is_good, point.due_ms), (2, true, None));
        assert_eq!(client.point(point.id).await.unwrap(), point);
        let second = client.run_group("web", &NewRun { schedule: Some("main".to_owned()) }).await.unwrap();
        let all = client.points(&ListPoints::default()).await.unwrap();
        let ids: Vec<u64> = all.items.iter().map(|point| point.id).collect();
        assert_eq!((ids, all.next), (vec![second.id, point.id], None));
        let one = ListPoints { limit: Some(1), ..ListPoints::default() };
        let page = client.points(&one).await.unwrap();
        let rest = client.points(&ListPoints { before: page.next, ..one }).await.unwrap();
        assert_eq!((page.items[0].id, rest.items[0].id), (second.id, point.id));
        for (which, count) in [
            (ListPoints { vm: Some("web01".to_owned()), ..ListPoints::default() }, 2),
            (ListPoints { vm: Some("db01".to_owned()), ..ListPoints::default() }, 0),
            (ListPoints { group: Some("default".to_owned()), ..ListPoints::default() }, 0),
            (ListPoints { since: Some("1h ago".to_owned()), ..ListPoints::default() }, 2),
            (ListPoints { until: Some("1h ago".to_owned()), ..ListPoints::default() }, 0),
            (ListPoints { locked: true, ..ListPoints::default() }, 0),
        ] {
            assert_eq!(client.points(&which).await.unwrap().items.len(), count, "{which:?}");
        }
        let protection = client.vm("web01").await.unwrap().protection.unwrap();
        assert_eq!((protection.state, protection.group.as_deref()), (ProtectionState::Ok, Some("web")));
        let held = client.hold_point(point.id, "1h").await.unwrap();
        assert!(held.locked_until_ms > held.at_ms);
        assert_eq!(code(client.delete_point(point.id).await), "snapshot_held");
        assert_eq!(client.delete_point(second.id).await.unwrap().deleted, second.name);
        assert_eq!(code(client.point(second.id).await), "point_not_found");
        let restore = NewRestore {
            vm: Some("web01".to_owned()),
            new_name: Some("r".to_owned()),
            ..NewRestore::default()
        };
        let done = client.restore_points(&restore).await.unwrap();
        assert_eq!((done.from.id, done.vms[0].restored_as.as_deref()), (point.id, Some("r")));
        let renamed = GroupSpec { name: "www".to_owned(), ..spec.clone() };
        let dry = HowToSet { dry_run: true, revision: Some(made.revision) };
        let would = client.set_group("web", &renamed, &dry).await.unwrap();
        assert_eq!(would.differences, ["- name: web", "+ name: www"]);
        client.set_group("web", &renamed, &HowToSet::default()).await.unwrap();
        assert_eq!(client.point(point.id).await.unwrap().group, "www");
        assert_eq!(client.delete_group("www").await.unwrap().deleted, "www");
        assert_eq!(client.point(point.id).await.unwrap().group, "");
        assert_eq!(code(client.group("www").await), "group_not_found");
    });
}
