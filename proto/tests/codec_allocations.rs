//! Hostile frames cannot make the decoder allocate out of proportion, measured by the allocator.

#![expect(
    unsafe_code,
    reason = "an allocator that measures can only be written as one"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use meros_proto::codec::{self, FRAME_BYTES_MAX, FrameBuffer, WIRE_VERSION};
use serde::de::DeserializeOwned;

/// The allocator of the system, measuring per thread so that other tests do not disturb.
struct Measuring;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the allocator of the system, which fulfils the
// contract; measuring touches only thread-local cells without destructor and allocates nothing.
unsafe impl GlobalAlloc for Measuring {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.get().wrapping_add(layout.size());
        HELD.set(held);
        PEAK.set(PEAK.get().max(held));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static MEASURING: Measuring = Measuring;

/// The most bytes held at once during the work, beyond those held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> usize {
    HELD.set(0);
    PEAK.set(0);
    drop(work());
    PEAK.get()
}

/// A frame whose payload begins with a length of `claimed`, followed by `given` bytes.
fn frame(claimed: u64, given: &[u8]) -> Vec<u8> {
    let payload = [&[253][..], &claimed.to_le_bytes(), given].concat();
    let length = u32::try_from(payload.len() + 1).expect("short");
    [&length.to_be_bytes()[..], &[WIRE_VERSION], &payload].concat()
}

fn peak_of_bad<T: DeserializeOwned>(bytes: &[u8]) -> usize {
    peak_of(|| assert!(codec::decode::<T>(bytes).is_err()))
}

#[test]
fn the_allocator_measures() {
    let peak = peak_of(|| vec![0_u8; 10_000]);
    assert!((10_000..11_000).contains(&peak), "{peak}");
}

#[test]
fn a_claimed_length_is_not_allocated() {
    // 2⁶² elements claimed in fifteen bytes.
    let bytes = frame(1 << 62, b"x");
    let bound = 4 * 1024;
    assert!(peak_of_bad::<String>(&bytes) < bound);
    assert!(peak_of_bad::<bytes::Bytes>(&bytes) < bound);
    assert!(peak_of_bad::<Vec<[u64; 32]>>(&bytes) < bound);
    assert!(peak_of_bad::<Vec<Vec<Vec<String>>>>(&bytes) < bound);
    assert!(peak_of_bad::<BTreeMap<u64, [u64; 32]>>(&bytes) < bound);
}

#[test]
fn a_claimed_frame_length_is_not_allocated() {
    let claimed = u32::try_from(FRAME_BYTES_MAX).expect("fits").to_be_bytes();
    let peak = peak_of(|| {
        let mut frames = FrameBuffer::new();
        frames.push(&claimed);
        assert!(
            frames
                .next_frame::<String>()
                .expect("not yet an error")
                .is_none()
        );
    });
    assert!(peak < 4 * 1024, "{peak}");
}

#[test]
fn the_memory_of_a_frame_stays_in_proportion_to_its_bytes() {
    // Each byte an empty option of 264 bytes: without a bound 264 times the frame.
    for given in [1_000, 100_000, FRAME_BYTES_MAX - 10] {
        let bytes = frame(u64::try_from(given).expect("fits"), &vec![0; given]);
        let peak = peak_of(|| codec::decode::<Vec<Option<[u64; 32]>>>(&bytes).map(drop));
        // 64 KiB and 64 times the payload; a growing list holds its old half for a moment, and may
        // have room for as many again.
        let bound = 3 * (64 * 1024 + 64 * bytes.len());
        assert!(peak <= bound, "{peak} bytes for a frame of {}", bytes.len());
    }
}
