//! Tokens of submissions: the ids of jobs, as UUIDs of version 4.
//!
//! Ids are of version 7 and sort by time. Judge0's tokens are of version 4, and clients check that: the
//! official SDK takes no other. The two differ in the four bits of the version only.

use gavel_core::JobId;
use uuid::Uuid;

const OF_JOBS: u8 = 7;
const OF_TOKENS: u8 = 4;

pub fn of(id: JobId) -> Uuid {
    changed(id, OF_JOBS, OF_TOKENS)
}

/// The job that a token means. An id that is no token stands for itself: jobs of the native API are
/// submissions, too.
pub fn read(text: &str) -> Option<JobId> {
    let token = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()?;
    Some(changed(token, OF_TOKENS, OF_JOBS))
}

fn changed(uuid: Uuid, from: u8, to: u8) -> Uuid {
    let mut bytes = uuid.into_bytes();
    if bytes[6] >> 4 == from {
        bytes[6] = (bytes[6] & 0x0f) | (to << 4);
    }
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_id_in_version_4_and_leads_back() {
        let id = JobId::now_v7();
        let token = of(id);
        assert_eq!((token.get_version_num(), token.get_variant()), (4, uuid::Variant::RFC4122));
        assert_eq!((read(&token.to_string()), read(&id.to_string())), (Some(id), Some(id)));
        for text in ["", "x", "{01890000-0000-7000-8000-000000000000}", "01890000000070008000000000000000"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
