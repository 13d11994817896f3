//! Goal: a client for whom the door of a compute node has no seat is told so.
//! Model: a node that stands by and may open few files, so that its door has few seats.

use super::{kill, program, serving, site};
use crate::nbd_client::{NbdClient, NbdError};

/// Open files of the node, an eighth of which are connections; each client that is handed on takes two.
const FILES: usize = 160;
/// NBD's answer to an option: against the server's rules.
const POLICY: u32 = (1 << 31) + 2;

#[test]
fn a_client_for_whom_a_door_has_no_seat_is_told() {
    let mut site = site();
    let (_, name) = serving(&site);
    kill(&mut site, name);
    let (dir, limit) = (site.dir(name), format!("--nofile={FILES}:{FILES}"));
    site.begin(name, "prlimit", &[&limit, program(), "compute", "--dir", &dir]);
    site.said(name);
    let socket = site.path(&format!("{name}/nbd.sock"));
    let open = || NbdClient::connect(&socket, "web01/disk0");
    let mut clients: Vec<NbdClient> = (0..FILES / 8 / 2).map(|_| open().unwrap()).collect();
    for _ in 0..10 {
        match open() {
            Err(NbdError::Refused(answer)) => assert_eq!(answer, POLICY),
            Err(NbdError::Gone(error)) => panic!("not answered: {error}"),
            Ok(_) => panic!("there are more seats than files for them"),
        }
    }
    clients.iter_mut().for_each(|client| client.flush().unwrap());
}
