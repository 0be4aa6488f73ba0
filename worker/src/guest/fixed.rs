//! What a deterministic run has instead of the world: randomness from a seed, and clocks that stand still.
//!
//! Invariant: two runs of the same module and input with the same [`Fixed`] give the same bytes.

use std::time::Duration;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{Digest, JobId};

/// The part of the world that one run sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    seed: [u8; 32],
    now: Duration,
}

impl Fixed {
    /// What a job's runs see, each of them: the seed is made of the module's bytes and the job's id.
    pub fn new(digest: &Digest, job_id: &JobId, accepted: Timestamp) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("wess deterministic run v1");
        hasher.update(digest.as_bytes());
        hasher.update(job_id.as_str().as_bytes());
        Self {
            seed: hasher.finalize().into(),
            now: Duration::from_millis(accepted.unix_ms()),
        }
    }

    /// Takes the place of the host's randomness and clocks. Each kind of randomness has a stream of its own.
    pub(super) fn put_into(self, builder: &mut WasiCtxBuilder) {
        let stream = |number| {
            let mut random = ChaCha20Rng::from_seed(self.seed);
            random.set_stream(number);
            random
        };
        let mut first = [0; 16];
        first.copy_from_slice(&blake3::hash(&self.seed).as_bytes()[..16]);
        builder
            .secure_random(stream(0))
            .insecure_random(stream(1))
            .insecure_random_seed(u128::from_le_bytes(first))
            .wall_clock(Stopped(self.now))
            .monotonic_clock(Stopped(self.now));
    }
}

/// A clock that always reads the same.
struct Stopped(Duration);

const RESOLUTION: Duration = Duration::from_millis(1);

impl HostWallClock for Stopped {
    fn resolution(&self) -> Duration {
        RESOLUTION
    }

    fn now(&self) -> Duration {
        self.0
    }
}

impl HostMonotonicClock for Stopped {
    fn resolution(&self) -> u64 {
        RESOLUTION.as_nanos() as u64
    }

    /// Counts from no instant that means anything.
    fn now(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_module_job_or_time_is_another_world() {
        let digests = [Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32])];
        let (job, other): (JobId, JobId) = ("one".parse().unwrap(), "two".parse().unwrap());
        let at = |text| Timestamp::parse(text).unwrap();
        let fixed = Fixed::new(&digests[0], &job, at("2026-01-01T00:00:00Z"));
        assert_eq!(fixed, Fixed::new(&digests[0], &job, at("2026-01-01T00:00:00Z")));
        for changed in [
            Fixed::new(&digests[1], &job, at("2026-01-01T00:00:00Z")),
            Fixed::new(&digests[0], &other, at("2026-01-01T00:00:00Z")),
            Fixed::new(&digests[0], &job, at("2026-01-01T00:00:01Z")),
        ] {
            assert_ne!(fixed, changed);
        }
    }
}
