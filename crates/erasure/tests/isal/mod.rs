//! ISA-L as oracle, loaded at run time: the crate itself does not depend on it.

#![allow(unsafe_code)] // calls into a C library

use std::ffi::{CStr, c_int, c_uchar, c_void};

type GenCauchy1 = unsafe extern "C" fn(*mut c_uchar, c_int, c_int);
type InitTables = unsafe extern "C" fn(c_int, c_int, *const c_uchar, *mut c_uchar);
type EncodeData =
    unsafe extern "C" fn(c_int, c_int, c_int, *const c_uchar, *const *const c_uchar, *const *mut c_uchar);
type Invert = unsafe extern "C" fn(*mut c_uchar, *mut c_uchar, c_int) -> c_int;

/// The functions of ISA-L that make an erasure code.
pub(crate) struct Isal {
    gen_cauchy1: GenCauchy1,
    init_tables: InitTables,
    encode_data: EncodeData,
    invert: Invert,
}

impl Isal {
    /// Loads the library; `None` when it is not installed.
    pub(crate) fn load() -> Option<Self> {
        // SAFETY: the name is a C string; loading this library runs no code of consequence.
        let library = unsafe { libc::dlopen(c"libisal.so.2".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return None;
        }
        // SAFETY: the types are those of erasure_code.h of ISA-L 2, whose soname was asked for; the library is
        // never unloaded.
        unsafe {
            Some(Self {
                gen_cauchy1: std::mem::transmute::<*mut c_void, GenCauchy1>(symbol(
                    library,
                    c"gf_gen_cauchy1_matrix",
                )),
                init_tables: std::mem::transmute::<*mut c_void, InitTables>(symbol(
                    library,
                    c"ec_init_tables",
                )),
                encode_data: std::mem::transmute::<*mut c_void, EncodeData>(symbol(
                    library,
                    c"ec_encode_data",
                )),
                invert: std::mem::transmute::<*mut c_void, Invert>(symbol(library, c"gf_invert_matrix")),
            })
        }
    }

    /// The generator matrix of k + m: (k + m) rows of k.
    pub(crate) fn generator(&self, k: usize, m: usize) -> Vec<u8> {
        let mut matrix = vec![0; (k + m) * k];
        // SAFETY: the function fills rows x k bytes.
        unsafe { (self.gen_cauchy1)(matrix.as_mut_ptr(), int(k + m), int(k)) };
        matrix
    }

    /// Expands `matrix`, rows of k coefficients, for [`Isal::encode`].
    pub(crate) fn tables(&self, k: usize, matrix: &[u8]) -> Vec<u8> {
        let mut tables = vec![0; 32 * matrix.len()];
        // SAFETY: the function reads rows x k bytes and fills 32 bytes for each.
        unsafe {
            (self.init_tables)(int(k), int(matrix.len() / k), matrix.as_ptr(), tables.as_mut_ptr());
        }
        tables
    }

    /// Overwrites each output with its row x `inputs`.
    pub(crate) fn encode(&self, tables: &[u8], inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        let length = inputs[0].len();
        assert!(inputs.iter().all(|input| input.len() == length));
        assert!(outputs.iter().all(|output| output.len() == length));
        assert_eq!(tables.len(), 32 * inputs.len() * outputs.len());
        let (k, rows) = (int(inputs.len()), int(outputs.len()));
        let inputs: Vec<*const u8> = inputs.iter().map(|input| input.as_ptr()).collect();
        let outputs: Vec<*mut u8> = outputs.iter_mut().map(|output| output.as_mut_ptr()).collect();
        // SAFETY: k inputs, the outputs and the tables have the lengths checked above.
        unsafe {
            (self.encode_data)(int(length), k, rows, tables.as_ptr(), inputs.as_ptr(), outputs.as_ptr());
        }
    }

    /// The inverse of a k x k matrix.
    pub(crate) fn inverse(&self, k: usize, mut matrix: Vec<u8>) -> Option<Vec<u8>> {
        assert_eq!(matrix.len(), k * k);
        let mut inverse = vec![0; k * k];
        // SAFETY: both hold k x k bytes.
        let failed = unsafe { (self.invert)(matrix.as_mut_ptr(), inverse.as_mut_ptr(), int(k)) };
        (failed == 0).then_some(inverse)
    }
}

/// # Safety
/// `library` is an open handle.
unsafe fn symbol(library: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: the handle is open, the name a C string.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    assert!(!address.is_null(), "libisal.so.2 has no {name:?}");
    address
}

fn int(value: usize) -> c_int {
    c_int::try_from(value).expect("fits a C int")
}
