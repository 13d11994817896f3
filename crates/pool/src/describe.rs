//! What a container's fragments say of it.

use proto::{Request, Response};
use units::{ContainerId, PAGE};

use crate::stripe::Pool;

impl Pool {
    /// Payload pages of each fragment of a container, from the header of any fragment within reach.
    pub async fn fragment_pages_of(&self, container: ContainerId) -> Option<u16> {
        // The row does not depend on how long the fragments are.
        let stripe = self.stripe(container, 1)?;
        for (index, first) in stripe.members.iter().enumerate() {
            for medium in [Some(*first), stripe.second(index)].into_iter().flatten() {
                let request = Request::FragmentHeader { container, index: index as u8 };
                if let Ok(Response::Header(header)) = self.ask_for(medium, request, medium == *first).await {
                    return u16::try_from(header.payload_bytes() / PAGE).ok();
                }
            }
        }
        None
    }
}
