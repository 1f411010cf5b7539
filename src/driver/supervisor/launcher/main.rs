//! The launcher's beginning, where nothing of acc is, and no library either: compiled by `build.rs`
//! alone.
//!
//! It finds its arguments on the stack, where the kernel has put them, and says how the process
//! ends.

#![no_std]
#![no_main]

mod confine;
mod program;
mod sys;

use core::arch::{asm, global_asm};
use core::ffi::{CStr, c_char};

// Where the kernel begins: the count of the arguments is on top of the stack, and pointers to them
// follow.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {begin}", begin = sym begin);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x0, sp", "bl {begin}", begin = sym begin);
#[cfg(target_arch = "riscv64")]
global_asm!(".globl _start", "_start:", "mv a0, sp", "andi sp, sp, -16", "call {begin}", begin = sym begin);

unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the kernel leaves there as many pointers as it says, each to a C string that stays.
    let file = unsafe { (*stack == 2).then(|| CStr::from_ptr(*stack.add(2) as *const c_char)) };
    exit(file.map_or(126, program::launch))
}

fn exit(code: u8) -> ! {
    // SAFETY: exit_group(2) does not return.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("syscall", in("rax") 231, in("rdi") usize::from(code), options(noreturn));
        #[cfg(target_arch = "aarch64")]
        asm!("svc 0", in("x8") 94, in("x0") usize::from(code), options(noreturn));
        #[cfg(target_arch = "riscv64")]
        asm!("ecall", in("a7") 94, in("a0") usize::from(code), options(noreturn));
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(126)
}

/// What the compiler takes for granted of a C library. Byte by byte, and `volatile`, or it would
/// find in each loop a call of the very function that it is.
mod memory {
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: the caller answers for both places.
            unsafe { to.add(at).write_volatile(*from.add(at)) }
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: the caller answers for the place.
            unsafe { to.add(at).write_volatile(byte.to_le_bytes()[0]) }
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        for at in 0..count {
            // SAFETY: the caller answers for both places.
            let (a, b) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        // SAFETY: the caller answers for both places.
        unsafe { memcmp(one, other, count) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        if to.addr() <= from.addr() {
            // SAFETY: forwards nothing is overwritten before it is read.
            return unsafe { memcpy(to, from, count) };
        }
        for at in (0..count).rev() {
            // SAFETY: backwards neither.
            unsafe { to.add(at).write_volatile(*from.add(at)) }
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(text: *const u8) -> usize {
        let mut length = 0;
        // SAFETY: the caller answers for the zero at its end.
        while unsafe { text.add(length).read_volatile() } != 0 {
            length += 1;
        }
        length
    }
}
