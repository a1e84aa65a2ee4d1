//! Tests of the check on facts as data.
