//! Every error that the program gives to people and programs: one table for the interface, the command line and
//! `holdfast explain`. A code is never given another meaning.

use std::fmt;

use crate::error::ErrorKind;

/// What there is to know of an error's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Its name: lower case with underscores.
    pub name: &'static str,
    /// Status of an HTTP answer that carries it; 0 when none does.
    pub status: u16,
    /// Exit code of a command that ends with it.
    pub exit: u8,
    /// It in a few words.
    pub title: &'static str,
    /// How it comes about.
    pub cause: &'static str,
    /// What to do next.
    pub next: &'static str,
}

impl Code {
    /// Every code, in the order of the alphabet.
    pub fn all() -> &'static [&'static Self] {
        CODES
    }

    /// The code of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        CODES.iter().copied().find(|found| found.name == name)
    }

    /// What the caller can do about such an error.
    pub fn kind(&self) -> ErrorKind {
        match self.status {
            404 => ErrorKind::NotFound,
            401 | 403 => ErrorKind::Denied,
            409 => ErrorKind::Conflict,
            507 => ErrorKind::NoSpace,
            503 => ErrorKind::Unavailable,
            400..500 => ErrorKind::Invalid,
            _ => ErrorKind::Failed,
        }
    }
}

impl PartialEq<str> for Code {
    fn eq(&self, name: &str) -> bool {
        self.name == name
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! codes {
    ($($constant:ident $name:ident $status:literal $exit:literal $title:literal $cause:literal $next:literal;)*) => {
        /// Every code by its name.
        pub mod code {
            use super::Code;
            $(
                #[doc = $cause]
                pub const $constant: &Code = &Code {
                    name: stringify!($name),
                    status: $status,
                    exit: $exit,
                    title: $title,
                    cause: $cause,
                    next: $next,
                };
            )*
        }
        const CODES: &[&Code] = &[$(code::$constant,)*];
    };
}

// Status 0: on the command line only. Exit codes: 1 failed, 2 usage, 4 not found, 5 denied, 6 conflict or busy,
// 7 time-out, 130 interrupted.
codes! {
    ALREADY_JOINED already_joined 409 6 "Directory in use"
        "The directory is a node's already."
        "Choose another directory; to begin anew, empty this one.";
    API_SOCKET api_socket 0 1 "Interface not served"
        "The server cannot make the socket of its interface in the site's directory."
        "See that the directory can be written and its path is short; the message has the system's reason.";
    BAD_REQUEST bad_request 400 2 "Bad request"
        "The request's body or path cannot be read."
        "Send one JSON value; escape what is not plain in paths.";
    BODY_TOO_LARGE body_too_large 413 2 "Request too large"
        "A request's body is longer than its path takes."
        "Send less; a definition has at most 512 KiB.";
    BUSY busy 409 6 "Busy"
        "Others keep changing the same things."
        "Try again.";
    CANCELLED cancelled 0 1 "Task was cancelled"
        "Somebody ended the task that the command waited for."
        "Start it again when it is wanted.";
    CLOSE_TIMEOUT close_timeout 500 1 "Stopped late"
        "The write buffer was not written in time when the server stopped."
        "Nothing is lost: the journal holds it until the next start.";
    CLOSING closing 503 1 "Stopping"
        "The server is stopping, or a newer one has taken over."
        "Wait for the stop, then start it again.";
    CONFIG_INVALID config_invalid 0 2 "Settings malformed"
        "config.toml in the node's directory cannot be read, or has a setting that nobody knows."
        "Mend the line that the message names; see docs/operations.md for the settings.";
    COPY_FAILED copy_failed 0 1 "Copy failed"
        "qemu-img, or the connection to the disk, failed while an image was copied."
        "The message has the reason; mend it and try again: nothing was left behind.";
    CORE_DUMPS core_dumps 0 1 "Core dumps stay on"
        "The system does not let the server turn its core dumps off, which would hold keys."
        "Start it as a user that may lower its own limits.";
    DAMAGE_FOUND damage_found 0 1 "Damage found"
        "A scrub or verification found data that cannot be read or repaired."
        "`task show` names what is affected: restore it from a copy, and bring missing media back.";
    DATA_LOST data_lost 500 1 "Data cannot be read"
        "Too many fragments or copies are missing or damaged to make the data whole."
        "Bring missing media back; else restore from a copy.";
    DEFINITION_TOO_LARGE definition_too_large 422 2 "Definition too large"
        "The text is longer than the site stores with a VM."
        "Store less: 512 KiB are the most.";
    DENIED denied 0 5 "Not allowed"
        "This user may not open the server's socket."
        "Run the command as the user of the site's server.";
    DISK_COUNT disk_count 422 2 "Number of disks"
        "A VM has 1 to 32 disks."
        "Ask for as many; `vm delete` deletes a VM with its last disk.";
    DISK_EXISTS disk_exists 409 6 "Disk is there"
        "A disk of this number is there already."
        "Try again.";
    DISK_NOT_FOUND disk_not_found 404 4 "No such disk"
        "The VM has no disk of this name."
        "`vm show` lists its disks.";
    FAULT_PLAN fault_plan 422 2 "Bad plan of faults"
        "The plan of faults for tests makes no sense."
        "Correct HOLDFAST_FAULT, or unset it.";
    FILE_ERROR file_error 500 1 "File cannot be used"
        "A file could not be read or written."
        "The message has the file and the system's reason.";
    FILE_EXISTS file_exists 0 6 "File is there"
        "The file to be written is there already."
        "Name another file; or remove this one, if it is not wanted.";
    FILE_NOT_FOUND file_not_found 404 4 "No such file"
        "The VM has no file of this name."
        "`vm show` lists its files.";
    FILE_STORING file_storing 409 6 "File is being stored"
        "A task is storing a file of the VM: neither another of this name can be stored, nor the VM renamed or deleted."
        "Wait for the task, or end it: `task cancel`.";
    FILE_TAKEN file_taken 409 6 "Name is taken"
        "The VM has a file of this name, and files do not change."
        "Choose another name with --as, or store it in its place: --replace.";
    FILE_TOO_LARGE file_too_large 422 2 "File too large"
        "A file of the site is larger than any sound one."
        "Put the right file in its place.";
    FOREIGN_MEDIUM foreign_medium 409 6 "Medium of another site"
        "A medium belongs to another site; it was left untouched."
        "Name this site's media; wipe the medium only when nothing on it is wanted.";
    GROUP_BUILT_IN group_built_in 409 6 "Built-in group"
        "The group `default` takes what no other group takes; it is not deleted, renamed or given rules of its own."
        "Pause it, take its schedules away, or have it exclude VMs: `group set default`.";
    GROUP_CHANGED group_changed 409 6 "Group was changed"
        "Another change of the group was faster."
        "Look at it and try again.";
    GROUP_EXISTS group_exists 409 6 "Name is taken"
        "There is a group of this name; names that differ in case alone are one."
        "Choose another name.";
    GROUP_NOT_FOUND group_not_found 404 4 "No such group"
        "No protection group has this name."
        "`group list` shows those there are.";
    HOLD_SHORTER hold_shorter 422 2 "Hold would end earlier"
        "The snapshot is held longer already; a hold is never shortened."
        "Name a later time, or leave it as it is.";
    IDENTITY_DAMAGED identity_damaged 500 1 "Identity damaged"
        "The node's key and certificates do not belong together, or are of another role."
        "Put sound copies of the files in the node's directory, or have the node join anew.";
    IMAGE_ENCRYPTED image_encrypted 0 2 "Encrypted image"
        "The image is encrypted, and the command has no key for it."
        "Decrypt it first, with qemu-img convert.";
    IMAGE_NOT_WHOLE image_not_whole 0 2 "Image with references"
        "The image takes data from other files: a backing file, a data file or extents."
        "Make it whole first: qemu-img convert -O qcow2 IMAGE WHOLE.";
    IMAGE_UNREADABLE image_unreadable 0 2 "Image cannot be read"
        "The image is not there, is no image of a disk, or qemu-img does not read it in this format."
        "See that it is there and whole; name the format with -f.";
    IMPORT_ENDED import_ended 0 6 "Task was ended"
        "The task was cancelled, or the server gave it up."
        "See `task show`; begin anew if it is still wanted.";
    INTERNAL internal 500 1 "Internal error"
        "The server did not answer as it should."
        "See the server's log.";
    INTERRUPTED interrupted 0 130 "Interrupted"
        "A signal ended the command."
        "Nothing was left behind: begin anew.";
    INVALID_ADDRESS invalid_address 422 2 "No usable address"
        "An address is malformed, names nobody that others can reach, or is given twice; or there are too many."
        "Write addresses as 10.0.0.1:7400, and those of etcd as NAME=10.0.0.1:2379.";
    INVALID_NAME invalid_name 422 2 "Not a name"
        "The name of a VM or snapshot has 1 to 63 of letters, digits, '.', '_' and '-', the first a letter or digit; a file's 1 to 127, and '+' too."
        "Choose such a name.";
    INVALID_PATH invalid_path 422 2 "Not a path"
        "A path is not absolute, names no medium of a data node, or is no text where text is needed: in a node's file, in the lines for a guest."
        "The message says which; name another path.";
    INVALID_REQUEST invalid_request 422 2 "Makes no sense"
        "The request is well formed and makes no sense."
        "Compare it with the interface's types: /api/v1/openapi.json.";
    INVALID_SIZE invalid_size 422 2 "Not a size"
        "A disk has at least 4096 bytes, at most 64 TiB, a multiple of 512; units are powers of 1024."
        "Write 512M, 20G, 20GiB or 1T.";
    INVALID_TIME invalid_time 422 2 "Not a time"
        "A time is RFC 3339, as 2030-01-01T00:00:00Z, or a span from now on, as 12h, 30d, 1y; it is to come."
        "Write one of them.";
    JOURNAL_LOST journal_lost 500 1 "Journal cannot be read"
        "The journal on the media that were named is not whole."
        "Bring more of the site's media.";
    KEY_MISSING key_missing 403 5 "No key"
        "The site's directory has no key file, and its keys want one."
        "Put the key file back, or use the recovery key.";
    KEY_WRONG key_wrong 403 5 "Wrong key"
        "The key or passphrase does not open the site's keys."
        "Use the site's own key, as the user it belongs to.";
    MANAGER_UNREACHABLE manager_unreachable 503 1 "Manager not reached"
        "The manager did not answer in time, is no manager of the site that the token or certificate names, or refused the connection."
        "See that `holdfast manager` runs, that its port can be reached from here, and that clocks agree to the minute.";
    MANIFEST_DAMAGED manifest_damaged 500 1 "site.json is damaged"
        "The list of the site's media cannot be read."
        "Put a good copy of site.json back.";
    MEDIA_COUNT media_count 422 2 "Number of media"
        "A site has 1 to 64 media."
        "Name as many.";
    MEDIA_DOWN media_down 503 1 "A medium is not there"
        "What was asked needs every medium of the site."
        "Bring it back, or take it out of the site, then try again.";
    MEDIA_MISSING media_missing 503 1 "Media are missing"
        "Not all media that are needed were named."
        "Name all media of the site with --media.";
    MEDIA_TWICE media_twice 422 2 "Media named twice"
        "--media and --file-media exclude each other."
        "Give one of them.";
    MEDIUM_BUSY medium_busy 409 6 "Medium in use"
        "A medium is mounted or held by another program."
        "Unmount it, or stop what uses it; name each medium once.";
    MEDIUM_ERROR medium_error 500 1 "Medium fails"
        "A medium could not be read or written."
        "See the system's log, and choose another medium.";
    MEDIUM_IN_USE medium_in_use 409 6 "Medium is in use"
        "The medium belongs to this site already."
        "Name another; `media list` shows those the site has.";
    MEDIUM_INVALID medium_invalid 422 2 "Not fit for a medium"
        "A medium is a regular file or a block device of 1 GiB or more; or its file cannot be made as large on the file system."
        "Name such a file or device, or a smaller size.";
    MEDIUM_MISSING medium_missing 404 4 "Medium is not there"
        "Nothing is at a medium's path."
        "Make the file, or connect the device.";
    MEDIUM_NEEDED medium_needed 409 6 "Medium is needed"
        "Without the medium the others could not keep all that is stored safe: too few are up, or they have too little room."
        "Add a medium first, or put another in its place: `media add`, `media replace`.";
    MEDIUM_NOT_EMPTY medium_not_empty 409 6 "Medium holds something"
        "A medium for a new site is not all zeros; it was left untouched."
        "Look what is on it; wipe it only when nothing on it is wanted.";
    MEDIUM_NOT_FOUND medium_not_found 404 4 "No such medium"
        "The site has no medium of this id, name or path."
        "`media list` shows those there are.";
    MEDIUM_TOO_SMALL medium_too_small 422 2 "Medium too small"
        "A medium has fewer bytes than a site can work with for long: 1 GiB, whatever the number of media."
        "Give media of 1 GiB or more.";
    METADATA_FULL metadata_full 507 1 "Metadata store full"
        "etcd has reached its quota and takes no changes."
        "Compact and defragment etcd or raise its quota, then disarm its alarm.";
    METADATA_LOST metadata_lost 500 1 "Metadata store lost"
        "The media of the data nodes hold a site of which the metadata store knows nothing."
        "Make it anew from a manager's copy: `site restore`.";
    METADATA_UNAVAILABLE metadata_unavailable 503 1 "Metadata store not reached"
        "No member of etcd answers, or too few of them for a majority."
        "See that etcd runs and its ports can be reached from here; the message has what it said.";
    METHOD_NOT_ALLOWED method_not_allowed 405 2 "Method not allowed"
        "The path does not take this method."
        "The Allow header lists what it takes.";
    NBD_SOCKET nbd_socket 500 1 "Disks not served"
        "The server cannot make the NBD socket in the site's directory."
        "Remove what is in its place; see that the directory can be written.";
    NO_CATALOGUE no_catalogue 404 4 "No copy of the metadata store"
        "The directory holds no copy of the metadata store: no manager has run there."
        "Name the directory of a manager, or a backup of it.";
    NO_DEFINITION no_definition 404 4 "No definition"
        "No text is stored with the VM."
        "`vm set-definition` stores one.";
    NO_PASSPHRASE no_passphrase 409 6 "No passphrase in use"
        "The site is opened by its key file: it has no passphrase to change."
        "Keep the key file safe; only a site that was made with --passphrase-file has a passphrase.";
    NO_SPACE no_space 507 1 "No room"
        "The pool, or a file system below it, has no room for this."
        "Empty the trash (`trash empty`), delete what is not needed, then free what it took (`clean`); or add media (`media add`); where a file system below is full, make room there. `status` says which it is.";
    NO_SPACE_REPORT no_space_report 404 4 "Space not computed"
        "What VMs and snapshots take was not computed since the server started."
        "Have it computed: `holdfast space`.";
    NO_SUCH_GROUP no_such_group 422 2 "No such group"
        "A group that was named does not exist."
        "Make it with groupadd, or give its number.";
    NODE_HAS_MEDIA node_has_media 409 6 "Node has media"
        "The data node holds media of the site."
        "Have it emptied: `node drain`, and remove it when `node list` shows no media on it; or, when it is lost for good, `--lost`: its media are rebuilt on others.";
    NODE_NAME_TAKEN node_name_taken 409 6 "Node's name taken"
        "Another node of the site has that name."
        "Choose another name, or remove the other node: `holdfast node remove`.";
    NODE_NEEDED node_needed 409 6 "Node is needed"
        "No other compute node would serve the site's disks."
        "Have another join, or stay with this one.";
    NODE_NOT_FOUND node_not_found 404 4 "No such node"
        "The site has no node of that name or id."
        "`holdfast node list` lists the nodes.";
    NODE_REMOVED node_removed 403 5 "Node was removed"
        "The node is none of the site's any more, or its certificate was revoked."
        "To take it back, empty its directory and join with a new token.";
    NOT_A_MEDIUM not_a_medium 409 6 "Not a medium of a site"
        "A file or device carries no superblock."
        "Leave it out.";
    NOT_FOUND not_found 404 4 "Nothing there"
        "The interface has nothing at this path."
        "See the list of paths: /api/v1/openapi.json.";
    NOT_JOINED not_joined 404 4 "Not joined"
        "The directory holds no certificate of a site: the node has not joined one."
        "Have it join: `holdfast node add` on the manager prints a token.";
    NOT_RUNNING not_running 0 1 "Site is not running"
        "Nobody listens on the socket in the site's directory."
        "Start the site: holdfast standalone --dir DIR.";
    NOT_SERVED not_served 503 1 "Site is not served"
        "No compute node serves the site now, or the one that does cannot be reached from here."
        "Wait a few seconds for a takeover; `holdfast node list` shows the nodes, their logs what is in the way.";
    OUT_OF_FILES out_of_files 503 1 "Server has no files left"
        "The server has as many files open as it may, so it cannot take another client."
        "Let the server open more files (LimitNOFILE of its unit, or `ulimit -Hn`), and start it again; or try again when clients are gone.";
    OUTPUT output 0 1 "Output failed"
        "The result could not be written to standard output or to its file."
        "See where the output goes.";
    PASSPHRASE_MISSING passphrase_missing 422 2 "No passphrase"
        "The file for the passphrase is not there, or has no passphrase in it."
        "Name a file whose first line is the passphrase.";
    PASSPHRASE_WANTED passphrase_wanted 403 5 "Passphrase wanted"
        "A passphrase opens this site, and none was given."
        "Give --passphrase-file.";
    PATH_TOO_LONG path_too_long 422 2 "Path too long"
        "The sockets in the site's directory would have longer paths than the system takes."
        "Choose a directory with a shorter path.";
    PERMISSION_DENIED permission_denied 403 5 "Not allowed"
        "The system does not let this user read or write a file, a medium or a socket, or enter a folder above it."
        "Run it as the user the site belongs to, or give that user the right; the message has the path.";
    POINT_CHANGED point_changed 409 6 "Point was changed"
        "Another change of the point was faster."
        "Look at it and try again.";
    POINT_NOT_FOUND point_not_found 404 4 "No such point"
        "No point has this number, or none is as it was asked for."
        "`point list` shows those there are.";
    PORT_IN_USE port_in_use 500 1 "Port not served"
        "The server cannot listen on its address."
        "See that nobody else listens there and that the address is one of this machine's; choose another with --listen.";
    PROGRAM_FAILED program_failed 0 1 "Program failed"
        "A program that the command runs could not be run, or gave no sense."
        "The message has its name and reason.";
    PROGRAM_MISSING program_missing 0 1 "Program is not installed"
        "The command runs a program that is not here."
        "Install the package that the message names.";
    PROTOCOL protocol 0 1 "Answer makes no sense"
        "What came back on the socket is no answer of this interface."
        "See that command and server are of one version.";
    REBUILD_GOES_ON rebuild_goes_on 409 6 "Rebuild goes on"
        "A rebuild is not cancelled: as long as its medium is away, data has less to spare."
        "Bring the medium back, which ends it, or put another in its place: `media replace`.";
    RECORD_DAMAGED record_damaged 500 1 "Record is damaged"
        "A record in the metadata store cannot be read."
        "See the server's log; a newer version may have written it.";
    RECOVERY_KEY_FILE_EXISTS recovery_key_file_exists 409 6 "File for the recovery key is there"
        "The file for a new recovery key is there already; it was left untouched."
        "Name another file.";
    RECOVERY_KEY_WRONG recovery_key_wrong 403 5 "Wrong recovery key"
        "The recovery key does not open the site's keys, or has a typing error."
        "Compare it with what was written down.";
    RUNTIME runtime 0 1 "Cannot run"
        "The program could not start its threads."
        "See the system's limits.";
    SCHEDULE_NOT_FOUND schedule_not_found 404 4 "No such schedule"
        "The group has no schedule of this name."
        "`group show` shows those it has.";
    SIGNALS signals 0 1 "No signals"
        "The program could not listen for signals."
        "See the system's limits.";
    SITE_BUSY site_busy 409 6 "Site is open elsewhere"
        "Another server has this site open."
        "Stop it first, or use it.";
    SITE_EXISTS site_exists 409 6 "Site is there"
        "The directory holds a site already."
        "Start it with `holdfast standalone`, or name another directory.";
    SITE_LOST site_lost 409 6 "site.json is gone"
        "The directory holds media, but no site.json."
        "Put site.json back; to begin anew, remove the media or choose another directory.";
    SITE_RECOVERED site_recovered 409 6 "Site was recovered elsewhere"
        "`site recover` made another directory for the site, which has its key and knows where its journal is; this one is out of date."
        "Start the site with the directory that the recovery made. Where that is lost too, recover the site anew: an empty directory, the media, the recovery key.";
    SNAPSHOT_EXISTS snapshot_exists 409 6 "Name is taken"
        "The VM has a snapshot of this name; names that differ in case alone are one."
        "Choose another name.";
    SNAPSHOT_HELD snapshot_held 409 6 "Snapshot is held"
        "The snapshot, or one of the VM, is held until a time; nobody deletes it before."
        "Wait until then: the message has the time, and `snapshot show`.";
    SNAPSHOT_NOT_FOUND snapshot_not_found 404 4 "No such snapshot"
        "The VM has no snapshot of this name."
        "`snapshot list` shows those there are.";
    SNAPSHOT_OF_POINT snapshot_of_point 409 6 "Part of a point"
        "The snapshot is one of several that are of one instant, and they stay or go together."
        "Delete or hold the point: `point show`, `point delete`, `point hold`.";
    TASK_ENDED task_ended 409 6 "Task has ended"
        "The task does not run any more."
        "See `task show`.";
    TASK_FAILED task_failed 0 1 "Task failed"
        "Work of the server ended for the reason that is told."
        "See `task show` and `status`; try again.";
    TASK_NOT_FOUND task_not_found 404 4 "No such task"
        "No task has this number, or it is one of the forgotten: the newest 200 are kept."
        "`task list` shows those there are.";
    TASK_RUNNING task_running 409 6 "At it already"
        "A task of this kind runs, and there is one at a time."
        "Wait for it, or cancel it: `task list`.";
    TIMEOUT timeout 504 7 "No answer in time"
        "What was asked was not done in time; it may still be done."
        "Look what became of it, or wait longer with --timeout.";
    TOKEN_INVALID token_invalid 422 2 "Token malformed"
        "What was given is no token, or it was copied with an error."
        "Copy the whole line that `holdfast node add` printed.";
    TOKEN_LIFE token_life 422 2 "Token's life out of range"
        "A token is good for one second to seven days."
        "Give a life within these.";
    TOKEN_REFUSED token_refused 403 5 "Token refused"
        "The token is unknown, was used, or its time is over."
        "Ask for another: `holdfast node add`.";
    TOO_FEW_MEDIA too_few_media 503 1 "Too few media"
        "Too few media are there to do it safely."
        "`status` lists the media; bring missing ones back.";
    TOO_MANY_ATTRIBUTES too_many_attributes 409 6 "Too many tags or labels"
        "A VM has 32 tags and 32 labels at most."
        "Remove some of them first.";
    TOO_MANY_CERTIFICATES too_many_certificates 409 6 "Too many certificates"
        "More certificates have not ended than records can hold."
        "Wait until some have ended; a node that asks again and again does not keep its answers.";
    TOO_MANY_CHANGES too_many_changes 0 1 "Too many stretches"
        "More stretches of a disk differ than are listed in one go; none is, so that nobody takes a part for the whole."
        "Compare snapshots that lie closer together, or take the pages of the interface: GET /api/v1/vms/{name}/changes.";
    TOO_MANY_DISKS too_many_disks 409 6 "Too many disks at once"
        "The VMs of the group have more disks and files than a point takes."
        "Make several groups of its VMs.";
    TOO_MANY_FILES too_many_files 409 6 "Too many files"
        "The VM has as many files as there can be."
        "Delete one first: `file delete`.";
    TOO_MANY_KEY_EPOCHS too_many_key_epochs 409 6 "Too many keys in use"
        "Six earlier data keys are still in use, or too many came since the server started."
        "Let the running rotation end (`task list`), and start the server anew.";
    TOO_MANY_NODES too_many_nodes 409 6 "Too many nodes"
        "The site has as many nodes as there can be."
        "Remove nodes that are no more: `holdfast node remove`.";
    TOO_MANY_TASKS too_many_tasks 409 6 "Too many tasks"
        "32 tasks are running."
        "Wait for one to end, or cancel one: `task list`.";
    TOO_MANY_TOKENS too_many_tokens 409 6 "Too many tokens"
        "As many tokens are out as there can be."
        "Wait until some have ended.";
    TOO_MANY_VMS too_many_vms 409 6 "Too many VMs"
        "A site has at most 10,000 VMs."
        "Delete one first.";
    TRASH_EMPTYING trash_emptying 409 6 "Being emptied"
        "A part of it may be gone already."
        "Nothing: it goes for good.";
    TRASH_NOT_FOUND trash_not_found 404 4 "Not in the trash"
        "The trash has nothing of this name or number, or it went for good."
        "`trash list` shows what there is.";
    UNKNOWN_CODE unknown_code 0 4 "No such code"
        "No error has this code."
        "`holdfast explain` lists them.";
    UNSUPPORTED_MEDIA_TYPE unsupported_media_type 415 2 "Not JSON"
        "The request's body is not declared as JSON."
        "Send content-type: application/json.";
    USAGE usage 0 2 "Command line makes no sense"
        "The arguments are not those of the command."
        "See --help.";
    VM_CHANGED vm_changed 409 6 "VM was changed"
        "Another change of the VM was faster."
        "Look at it and try again.";
    VM_EXISTS vm_exists 409 6 "Name is taken"
        "There is a VM of this name; names that differ in case alone are one."
        "Choose another name.";
    VM_HAS_SNAPSHOTS vm_has_snapshots 409 6 "VM has snapshots"
        "A VM with snapshots goes only when that is said."
        "Delete it with them: --with-snapshots; `snapshot list --vm` shows them.";
    VM_IMPORTING vm_importing 409 6 "VM is being imported"
        "The VM's import is not done."
        "Wait for it, or end it: `task cancel`.";
    VM_IN_TRASH vm_in_trash 409 6 "VM is in the trash"
        "The VM of the snapshot was deleted too."
        "Restore the VM first, then the snapshot: `trash list`.";
    VM_IN_USE vm_in_use 409 6 "VM is in use"
        "An NBD client has a disk of the VM or snapshot open."
        "Stop the guest, or end the client, first.";
    VM_NOT_FOUND vm_not_found 404 4 "No such VM"
        "No VM has this name."
        "`vm list` shows those there are.";
    WITNESS_LOST witness_lost 500 1 "Witness is lost"
        "The file that remembers where the journal was last cannot be used."
        "Put the newest copy of the file in its place; an old one is refused by the journal.";
    WOULD_SHRINK would_shrink 422 2 "Disk would shrink"
        "The size asked for is smaller than the disk, whose end would be lost."
        "Make the file systems on it smaller first, then say --shrink.";
}
