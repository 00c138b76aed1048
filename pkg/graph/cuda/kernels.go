//go:build gpu && linux

package cuda

// kernelNames lists the kernels of MEAP_KERNELS in csrc/args.h, without the meap_ before each.
var kernelNames = []string{
	"cast_f32_bf16", "cast_bf16_f32", "add_f32", "add_bf16", "accumulate_f32", "accumulate_bf16", "swiglu_f32", "swiglu_bf16",
	"swiglu_grad_f32", "swiglu_grad_bf16", "bias_f32", "bias_f32_bf16", "rope_f32", "rope_bf16", "embedding_f32", "embedding_bf16",
	"embedding_f32_bf16", "weighted_sum_grad_f32", "adamw_f32", "rmsnorm_f32", "rmsnorm_bf16", "rmsnorm_grad_f32",
	"rmsnorm_grad_bf16", "column_sum_f32", "column_sum_bf16", "reduce_rows_f32", "weighted_sum_f32", "grad_norm_partial_f32",
	"grad_norm_total_f32", "step_report_f32", "cross_entropy_f32", "cross_entropy_grad_f32", "cross_entropy_grad_f32_bf16",
	"sort_count", "sort_scan", "sort_scatter", "embedding_grad_f32", "embedding_grad_bf16", "attention_spans", "attention_bf16_64",
	"attention_bf16_128", "attention_bf16_64_sm90", "attention_f32", "attention_bf16", "attention_f32_wide", "attention_bf16_wide",
	"attention_delta_f32", "attention_delta_bf16", "attention_grad_q_bf16_64", "attention_grad_q_bf16_128",
	"attention_grad_q_bf16_64_sm90", "attention_grad_q_f32", "attention_grad_q_bf16", "attention_grad_q_f32_wide",
	"attention_grad_q_bf16_wide", "attention_grad_kv_bf16_64", "attention_grad_kv_bf16_128", "attention_grad_kv_bf16_64_sm90",
	"attention_grad_kv_f32", "attention_grad_kv_bf16", "attention_grad_kv_f32_wide", "attention_grad_kv_bf16_wide",
	"cache_write_f32", "cache_write_bf16", "cached_attention_bf16_64", "cached_attention_bf16_128", "cached_attention_merge_bf16",
	"cached_attention_f32", "cached_attention_bf16", "cached_attention_f32_wide", "cached_attention_bf16_wide", "product_f32",
	"product_bf16", "product_bf16_f32",
}
