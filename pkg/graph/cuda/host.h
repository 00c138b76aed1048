// What this package calls of CUDA beside gorgonia.org/cu, and libraries that are opened at run time.
#ifndef MEAP_HOST_H
#define MEAP_HOST_H
#include <stddef.h>
#include <stdint.h>

// meap_open_driver opens the driver library at path and calls its cuInit, once a process. It returns a CUresult; where the library
// is missing, -1 with the reason in meap_driver_error.
int meap_open_driver(const char *path);
const char *meap_driver_error(void);

const char *meap_error_name(int r);
const char *meap_error_text(int r);

// All of these make ctx current on the calling thread first, so it does not matter which thread that is.
int meap_current(uintptr_t ctx);
int meap_alloc(uintptr_t ctx, uint64_t *p, size_t n);
int meap_free(uintptr_t ctx, uint64_t p);
int meap_mem_info(uintptr_t ctx, size_t *free, size_t *total);
int meap_pinned_alloc(uintptr_t ctx, void **p, size_t n);
int meap_pinned_free(uintptr_t ctx, void *p);
int meap_zero(uintptr_t ctx, uint64_t p, size_t n, uintptr_t stream);
int meap_to_device(uintptr_t ctx, uint64_t dst, const void *src, size_t n, uintptr_t stream);
int meap_to_host(uintptr_t ctx, void *dst, uint64_t src, size_t n, uintptr_t stream);
int meap_on_device(uintptr_t ctx, uint64_t dst, uint64_t src, size_t n, uintptr_t stream);
int meap_record(uintptr_t ctx, uintptr_t event, uintptr_t stream);
int meap_wait(uintptr_t ctx, uintptr_t stream, uintptr_t event);
int meap_event_sync(uintptr_t ctx, uintptr_t event);
int meap_stream_sync(uintptr_t ctx, uintptr_t stream);
int meap_shared(uintptr_t ctx, uintptr_t function, int bytes);
int meap_launch(uintptr_t ctx, uintptr_t function, unsigned gx, unsigned gy, unsigned gz, unsigned block, unsigned shared, uintptr_t stream, void *args);
int meap_capture_begin(uintptr_t ctx, uintptr_t stream);
int meap_capture_end(uintptr_t ctx, uintptr_t stream, uintptr_t *exec);
int meap_graph_launch(uintptr_t ctx, uintptr_t exec, uintptr_t stream);
int meap_graph_free(uintptr_t ctx, uintptr_t exec);

// Libraries. meap_dlopen returns null and the reason in err.
void *meap_dlopen(const char *name, char *err, size_t n);

// cuBLASLt. meap_lt_bind returns the name of a symbol that is missing, or null.
typedef struct meap_lt meap_lt;
const char *meap_lt_bind(void *library, meap_lt **lt);
size_t meap_lt_version(meap_lt *lt);
int meap_lt_create(meap_lt *lt, uintptr_t ctx);
void meap_lt_destroy(meap_lt *lt);
// A product in column-major order: d [m, n] = op(a) op(b), plus c [m, n] unless that is null, summed in fp32. Types are cudaDataType_t, c's
// being d's.
typedef struct {
	int transa, transb, type, dtype;
	uint64_t m, n, k;
	int64_t lda, ldb, ldd;
	unsigned aligna, alignb, alignd;
	size_t workspace;
} meap_product;
typedef struct meap_lt_plan meap_lt_plan;
// meap_lt_plan_new returns a cublasStatus_t; with status 0 and no plan, there is no algorithm.
int meap_lt_plan_new(meap_lt *lt, uintptr_t ctx, const meap_product *p, meap_lt_plan **plan);
void meap_lt_plan_free(meap_lt *lt, meap_lt_plan *plan);
int meap_lt_run(meap_lt *lt, uintptr_t ctx, meap_lt_plan *plan, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t workspace, size_t bytes, uintptr_t stream);

// NVRTC.
typedef struct meap_nvrtc meap_nvrtc;
const char *meap_nvrtc_bind(void *library, meap_nvrtc **rtc);
int meap_nvrtc_version(meap_nvrtc *rtc, int *major, int *minor);
// meap_nvrtc_compile returns an nvrtcResult; image and log are the caller's to free.
int meap_nvrtc_compile(meap_nvrtc *rtc, const char *source, const char *name, int headers, char **header_text, char **header_names,
                       int options, char **option, char **image, size_t *image_len, char **log);
#endif
