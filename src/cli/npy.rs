//! NumPy's file format, version 1.0, for one array of f32.

/// The bytes of a one-dimensional little-endian f32 array.
pub fn f32_array(values: &[f32]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", values.len());
    // Magic, version and length take 10 bytes; the whole header is padded to a multiple of 64 and ends in a newline.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    for v in values {
        out.extend(v.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn header_is_aligned() {
        let bytes = super::f32_array(&[1.0, 2.0]);
        assert_eq!(&bytes[..6], b"\x93NUMPY");
        assert_eq!((bytes.len() - 2 * 4) % 64, 0);
        assert_eq!(bytes[bytes.len() - 9], b'\n');
        assert_eq!(&bytes[bytes.len() - 4..], &2f32.to_le_bytes());
    }
}
