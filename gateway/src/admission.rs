//! How many requests may be worked on at once, and how many bytes of bodies be held.
//!
//! Refuses at once with `overloaded`: whoever waits here would hold what it has while it waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wess_schemas::ErrorCode;
use wess_schemas::limits::MIB;

use crate::problem::Problem;

/// Bodies up to this size are not counted: the bound on requests bounds them.
const FREE_BYTES: u64 = 64 * 1024;
/// The unit of counting: permits are taken by a 32-bit number.
const UNIT_BYTES: u64 = 1024;
/// How long an output waits for room: its guest has run, so refusing it at once would waste the run.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(10);

/// The rooms of one gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    all_units: u32,
}

/// Room that is given back when this is dropped.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

/// Room for the bytes of a body; none at first.
#[derive(Debug, Default)]
pub struct Reservation(Option<OwnedSemaphorePermit>);

impl Admission {
    /// Room for so many requests and so many MiB of bodies.
    pub fn new(max_requests: usize, max_buffered_mb: u32) -> Self {
        let units_per_mb = (MIB / UNIT_BYTES) as u32;
        let all_units = max_buffered_mb.saturating_mul(units_per_mb);
        Self {
            requests: Arc::new(Semaphore::new(max_requests)),
            bytes: Arc::new(Semaphore::new(all_units as usize)),
            all_units,
        }
    }

    /// Room for one request.
    pub fn request(&self) -> Result<Room, Problem> {
        let permit = self.requests.clone().try_acquire_owned();
        permit
            .map(Room)
            .map_err(|_| overloaded("too many requests are in flight"))
    }

    /// Room for a download: what the object store sends ahead of a slow client is held here, all of it at worst.
    pub fn download(&self, bytes: u64) -> Result<Reservation, Problem> {
        let mut reservation = Reservation::default();
        self.reserve(&mut reservation, self.units(bytes).min(self.all_units))?;
        Ok(reservation)
    }

    /// Makes a reservation large enough for so many bytes, or refuses.
    pub fn grow(&self, reservation: &mut Reservation, bytes: u64) -> Result<(), Problem> {
        let missing = self.units(bytes).saturating_sub(reservation.units());
        self.reserve(reservation, missing)
    }

    /// Bytes that are there already, counted until the last of them is dropped, or refused.
    pub fn hold(&self, bytes: Bytes) -> Result<Bytes, Problem> {
        let mut reservation = Reservation::default();
        self.grow(&mut reservation, bytes.len() as u64)?;
        Ok(reservation.hold(bytes))
    }

    fn reserve(&self, reservation: &mut Reservation, units: u32) -> Result<(), Problem> {
        if units > 0 {
            let permit = self.bytes.clone().try_acquire_many_owned(units);
            reservation.add(permit.map_err(|_| overloaded("too many bytes of bodies are held"))?);
        }
        Ok(())
    }

    /// Room for an output of so many bytes; one larger than all the room there is takes all of it.
    pub async fn output(&self, bytes: u64) -> Result<Reservation, OutputRefused> {
        let mut reservation = Reservation::default();
        let units = self.units(bytes).min(self.all_units);
        if units > 0 {
            let permit = self.bytes.clone().acquire_many_owned(units);
            let acquired = tokio::time::timeout(OUTPUT_PATIENCE, permit).await;
            reservation.add(acquired.map_err(|_| OutputRefused)?.map_err(|_| OutputRefused)?);
        }
        Ok(reservation)
    }

    fn units(&self, bytes: u64) -> u32 {
        if bytes <= FREE_BYTES {
            return 0;
        }
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
    }
}

/// There was no room for an output in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for the output within {OUTPUT_PATIENCE:?}")]
pub struct OutputRefused;

fn overloaded(message: &str) -> Problem {
    Problem::new(ErrorCode::Overloaded, message)
}

impl Reservation {
    fn units(&self) -> u32 {
        self.0.as_ref().map_or(0, |permit| permit.num_permits() as u32)
    }

    fn add(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.0 {
            None => self.0 = Some(permit),
            Some(held) => held.merge(permit),
        }
    }

    /// The bytes that it was made for, which give the room back when the last of them is dropped.
    pub fn hold(self, bytes: impl Into<Bytes>) -> Bytes {
        match self.0 {
            None => bytes.into(),
            Some(_) => held(bytes.into(), self),
        }
    }
}

/// Bytes that keep something until the last of them is dropped.
pub fn held(bytes: Bytes, kept: impl Send + Sync + 'static) -> Bytes {
    Bytes::from_owner(Held { bytes, _kept: kept })
}

struct Held<K> {
    bytes: Bytes,
    _kept: K,
}

impl<K> AsRef<[u8]> for Held<K> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM_MB: u32 = 1;

    #[test]
    fn past_the_bound_a_request_is_refused_until_one_has_ended() {
        let admission = Admission::new(1, ROOM_MB);
        let first = admission.request().unwrap();
        assert_eq!(admission.request().unwrap_err().code(), ErrorCode::Overloaded);
        drop(first);
        assert!(admission.request().is_ok());
    }

    #[test]
    fn past_the_bound_a_download_is_refused_and_one_larger_than_all_room_takes_all() {
        let admission = Admission::new(1, ROOM_MB);
        let running = admission.download(100 * MIB).unwrap();
        assert_eq!(admission.download(MIB).unwrap_err().code(), ErrorCode::Overloaded);
        drop(running);
        assert!(admission.download(MIB).is_ok());
    }

    #[test]
    fn bytes_are_counted_until_the_last_of_them_is_dropped() {
        let admission = Admission::new(1, ROOM_MB);
        let mut reservation = Reservation::default();
        admission.grow(&mut reservation, MIB / 2).unwrap();
        admission.grow(&mut reservation, MIB).unwrap();
        let held = reservation.hold(vec![0; 8]);
        let part = held.slice(..1);
        drop(held);
        let refused = admission
            .grow(&mut Reservation::default(), FREE_BYTES + 1)
            .unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Overloaded);
        admission.grow(&mut Reservation::default(), FREE_BYTES).unwrap();
        drop(part);
        admission.grow(&mut Reservation::default(), MIB).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_output_waits_for_room_and_one_larger_than_all_room_takes_all() {
        let admission = Admission::new(1, ROOM_MB);
        let all = admission.output(100 * MIB).await.unwrap();
        assert_eq!(admission.output(MIB).await.unwrap_err(), OutputRefused);
        let (waited, ()) = tokio::join!(admission.output(MIB), async { drop(all) });
        assert!(waited.is_ok());
    }
}
