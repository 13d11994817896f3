//! Goal: what was written is read, whatever up to m media or fragments do; what cannot be read is named; nothing is
//! left behind. Model: the real data nodes on disks in memory, a transport that follows a script, the bytes written.

mod bench;
mod geometry;
mod loss;
mod property;
mod read;
mod reconcile;
mod repair;
mod rows;
mod script;
mod site;
mod space;
mod write;
