//! The group whose members may open the disks: QEMU mostly runs as another user than the site.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};

use api::{Error, Result, code};

use crate::directory::Directory;

const GROUPS: &str = "/etc/group";
/// Members pass through the directory, and see nothing of it.
const DIRECTORY_MODE: u32 = 0o710;
const SOCKET_MODE: u32 = 0o660;

/// The number of a group that is given by number or by a name in `/etc/group`.
///
/// # Errors
/// `no_such_group`.
pub fn group_id(group: &str) -> Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string(GROUPS).unwrap_or_default();
    find(&groups, group).ok_or_else(|| {
        let reason = format!("{GROUPS} has no group {group:?}");
        Error::new(code::NO_SUCH_GROUP, reason).hint("make it with groupadd, or give its number")
    })
}

/// Lines have a name, a password, a number and members, with colons between them.
fn find(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Opens the socket of the disks, and the way to it, to a group. All else in the directory stays the owner's.
///
/// # Errors
/// `permission_denied` when the system refuses.
pub fn admit(directory: &Directory, group: u32) -> Result<()> {
    let socket = directory.nbd_socket();
    for (path, mode) in [(directory.root(), DIRECTORY_MODE), (socket.as_path(), SOCKET_MODE)] {
        chown(path, None, Some(group))
            .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
            .map_err(|error| {
                Error::file(path, &error)
                    .hint(format!("who runs the site must be root or a member of group {group}"))
            })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_or_number() {
        let groups = "root:x:0:\nkvm:x:106:ann,bob\nkv:x:7:\nbroken\nworse:x:many:\n";
        assert_eq!(find(groups, "kvm"), Some(106));
        assert_eq!(find(groups, "root"), Some(0));
        for name in ["kvmm", "broken", "worse", "x", ""] {
            assert_eq!(find(groups, name), None, "{name}");
        }
        assert_eq!(group_id("106").unwrap(), 106);
        assert_eq!(group_id("no such group").unwrap_err().code, "no_such_group");
    }
}
