//! Memory by count: an allocator of bytes that knows how many are in use.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, and how much of it is in use. Declare it with `#[global_allocator]`.
#[derive(Debug, Default)]
pub struct Counting {
    in_use: AtomicUsize,
}

impl Counting {
    /// Nothing is in use yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            in_use: AtomicUsize::new(0),
        }
    }

    /// The bytes that are in use, as they were asked for: what the system adds to each is not in.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }
}

#[expect(
    unsafe_code,
    reason = "an allocator of bytes cannot be written without"
)]
// SAFETY: each call is handed on to the system's allocator as it came, so that what that one
// promises holds; counting touches no memory that is handed out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.in_use.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.in_use.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `at` came from `alloc` with this layout, which came from the system.
        unsafe { System.dealloc(at, layout) }
    }
}
