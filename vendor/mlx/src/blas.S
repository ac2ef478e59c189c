// BLAS and LAPACK under the names that libmlx asks for, forwarded to OpenBLAS, whose symbols carry a scipy_ prefix.
// A plain jump keeps whatever arguments the routine takes.
#if defined(__x86_64__)
#define FORWARD(name) .globl name; .type name, @function; name: endbr64; jmp scipy_##name@PLT; .size name, . - name
#elif defined(__aarch64__)
#define FORWARD(name) .globl name; .type name, %function; name: b scipy_##name; .size name, . - name
#else
#error "no OpenBLAS forwarding for this processor"
#endif

.text

FORWARD(cblas_sgemm)
FORWARD(cblas_dgemm)
FORWARD(cblas_cgemm)
FORWARD(cblas_zgemm)

FORWARD(sgetrf_)
FORWARD(dgetrf_)
FORWARD(sgetri_)
FORWARD(dgetri_)
FORWARD(sgeqrf_)
FORWARD(dgeqrf_)
FORWARD(sorgqr_)
FORWARD(dorgqr_)
FORWARD(spotrf_)
FORWARD(dpotrf_)
FORWARD(strtri_)
FORWARD(dtrtri_)
FORWARD(sgesdd_)
FORWARD(dgesdd_)
FORWARD(cgesdd_)
FORWARD(ssyevd_)
FORWARD(dsyevd_)
FORWARD(cheevd_)
FORWARD(sgeev_)
FORWARD(dgeev_)
FORWARD(cgeev_)

.section .note.GNU-stack, "", %progbits
