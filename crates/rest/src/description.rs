//! The interface's description: OpenAPI 3.1, made from the routes and types themselves.

use api::Problem;
use api::types::{
    Deleted, Diff, Event, Explanation, Failure, Founded, GroupChange, GroupsFile, Joined, List, Medium,
    MetadataRestored, NewClient, Node, NodeServing, Recovered, Script, Serving, SnapshotDisk, Task, Token,
    VmSummary, Written,
};
use utoipa::OpenApi;
use utoipa::openapi;

/// What is said of the interface as a whole. The types named here are those that only the command line gives out.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Holdfast",
        description = "The management interface of a site: HTTP on the unix socket `api.sock` in the site's directory.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(
        schemas(
            Deleted, Diff, Event, Explanation, Failure, Founded, GroupsFile, Joined, NewClient, Node, NodeServing, Problem, MetadataRestored, Recovered, Script, Serving, Token, Written,
            List<Deleted>, List<Explanation>, List<GroupChange>, List<Medium>, List<SnapshotDisk>,
            List<Node>, List<Task>, List<VmSummary>,
        ),
        responses(Refused),
    ),
)]
pub(crate) struct Description;

/// Any answer that is no success.
#[derive(utoipa::ToResponse)]
#[response(description = "An error, as RFC 9457 has it.", content_type = "application/problem+json")]
#[allow(dead_code)] // a type for the description
pub(crate) struct Refused(Problem);

/// The description as it is served and kept in the repository.
pub(crate) fn text(description: openapi::OpenApi) -> String {
    let text = description.to_pretty_json();
    format!("{}\n", text.expect("a description is plain values"))
}
