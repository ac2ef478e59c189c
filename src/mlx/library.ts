/**
 * Opens the native library: the only place that calls dlopen. `native` holds every C function; the op table's come
 * from the generated symbols, the rest are listed here, by subject, as in vendor/mlx/src.
 */
import { type FFIFunction, ptr } from "bun:ffi";
import { listedVariables } from "../environment";
import { buildFolder, cudaEnvironment } from "./cuda-environment";
import { opSymbols } from "./generated/symbols";
import { mail, numberMail } from "./mailbox";
import { nativeLibrary } from "./native-files";
import { openLibrary } from "./open-library";
import { checkThreads } from "./threads";

const i32 = "i32";
const bytes = "ptr";
const none: [] = [];

const handSymbols = {
  mlxlm_attach_mailbox: { args: ["ptr", i32, "ptr"], returns: i32 },
  mlxlm_last_error: { args: none, returns: "cstring" },
  mlxlm_text: { args: none, returns: "ptr" },

  mlxlm_scope_begin: { args: none, returns: i32 },
  mlxlm_scope_end: { args: [i32], returns: i32 },
  mlxlm_keep: { args: [i32], returns: i32 },
  mlxlm_release: { args: [i32], returns: i32 },
  mlxlm_free: { args: [i32], returns: i32 },
  mlxlm_live_arrays: { args: none, returns: i32 },

  mlxlm_from_data: { args: [bytes, "f64", i32, i32], returns: i32 },
  mlxlm_scalar: { args: ["f64", i32], returns: i32 },
  mlxlm_describe: { args: [i32], returns: i32 },
  mlxlm_read: { args: [i32, bytes, "f64"], returns: i32 },
  mlxlm_highest: { args: [i32, i32, i32], returns: i32 },
  mlxlm_item: { args: [i32], returns: i32 },
  mlxlm_eval: { args: [i32], returns: i32 },
  mlxlm_async_eval: { args: [i32], returns: i32 },
  mlxlm_is_evaluated: { args: [i32], returns: i32 },
  mlxlm_is_scheduled: { args: [i32], returns: i32 },
  mlxlm_share: { args: [i32], returns: i32 },
  mlxlm_promote: { args: [i32, i32], returns: i32 },

  mlxlm_metal_available: { args: none, returns: i32 },
  mlxlm_cuda_available: { args: none, returns: i32 },
  mlxlm_enable_cpu_kernels: { args: ["bool"], returns: i32 },
  mlxlm_device_count: { args: [i32], returns: i32 },
  mlxlm_default_device: { args: none, returns: i32 },
  mlxlm_set_default_device: { args: [i32, i32], returns: i32 },
  mlxlm_device_info: { args: [i32, i32], returns: i32 },
  mlxlm_new_stream: { args: [i32, i32], returns: i32 },
  mlxlm_use_stream: { args: [i32], returns: i32 },
  mlxlm_set_default_stream: { args: [i32], returns: i32 },
  mlxlm_synchronize: { args: [i32], returns: i32 },
  mlxlm_active_memory: { args: none, returns: "f64" },
  mlxlm_peak_memory: { args: none, returns: "f64" },
  mlxlm_cache_memory: { args: none, returns: "f64" },
  mlxlm_available_memory: { args: none, returns: "f64" },
  mlxlm_memory_limit: { args: none, returns: "f64" },
  mlxlm_set_memory_limit: { args: ["f64"], returns: "f64" },
  mlxlm_set_cache_limit: { args: ["f64"], returns: "f64" },
  mlxlm_set_wired_limit: { args: ["f64"], returns: "f64" },
  mlxlm_buffer_size: { args: [i32], returns: "f64" },
  mlxlm_reset_peak_memory: { args: none, returns: i32 },
  mlxlm_clear_cache: { args: none, returns: i32 },
  mlxlm_release_memory: { args: none, returns: i32 },
  mlxlm_prefer_huge_pages: { args: [i32], returns: i32 },
  mlxlm_set_metallib_path: { args: [bytes], returns: i32 },

  mlxlm_attach_trampoline: { args: ["function"], returns: i32 },
  mlxlm_dropped_functions: { args: none, returns: i32 },
  mlxlm_value_and_grad: { args: [i32, i32, i32], returns: i32 },
  mlxlm_vjp: { args: [i32, i32, i32], returns: i32 },
  mlxlm_jvp: { args: [i32, i32, i32], returns: i32 },
  mlxlm_vmap: { args: [i32, i32, i32, i32], returns: i32 },
  mlxlm_checkpoint: { args: [i32, i32], returns: i32 },
  mlxlm_custom_function: { args: [i32, i32, i32, i32], returns: i32 },
  mlxlm_compile: { args: [i32, "bool"], returns: i32 },
  mlxlm_call_compiled: { args: [i32, i32], returns: i32 },
  mlxlm_free_compiled: { args: [i32], returns: i32 },
  mlxlm_enable_compile: { args: ["bool"], returns: i32 },
  mlxlm_export_function: { args: [bytes, i32, i32, "bool"], returns: i32 },
  mlxlm_import_function: { args: [bytes], returns: i32 },
  mlxlm_call_imported: { args: [i32, i32], returns: i32 },
  mlxlm_free_imported: { args: [i32], returns: i32 },

  mlxlm_load_safetensors: { args: [bytes], returns: i32 },
  mlxlm_save_safetensors: { args: [bytes, bytes, i32, bytes, i32], returns: i32 },
  mlxlm_load_gguf: { args: [bytes], returns: i32 },
  mlxlm_save_gguf: { args: [bytes, bytes, i32, i32], returns: i32 },
  mlxlm_map_file: { args: [bytes, "f64", i32], returns: i32 },
  mlxlm_load_npy: { args: [bytes], returns: i32 },
  mlxlm_save_npy: { args: [bytes, i32], returns: i32 },

  mlxlm_metal_kernel: { args: [bytes, bytes, i32, i32, bytes, bytes, "bool", "bool"], returns: i32 },
  mlxlm_cuda_kernel: { args: [bytes, bytes, i32, i32, bytes, bytes, "bool", i32], returns: i32 },
  mlxlm_call_kernel: { args: [i32, i32, i32, bytes, i32, "f64", "bool"], returns: i32 },

  mlxlm_grammar_vocabulary: { args: [bytes, "f64", bytes, i32, i32, i32], returns: i32 },
  mlxlm_grammar_compile: { args: [i32, i32, bytes, i32], returns: i32 },
  mlxlm_grammar_compiled: { args: [i32], returns: i32 },
  mlxlm_grammar_matcher: { args: [i32], returns: i32 },
  mlxlm_grammar_accept: { args: [i32, i32], returns: i32 },
  mlxlm_grammar_rollback: { args: [i32, i32], returns: i32 },
  mlxlm_grammar_state: { args: [i32], returns: i32 },
  mlxlm_grammar_forced: { args: [i32], returns: i32 },
  mlxlm_grammar_forced_text: { args: [i32], returns: i32 },
  mlxlm_grammar_mask: { args: [i32, i32, i32, i32], returns: i32 },
  mlxlm_grammar_free: { args: [i32], returns: i32 },
  mlxlm_live_grammars: { args: none, returns: i32 },

  mlxlm_distributed_available: { args: [bytes], returns: i32 },
  mlxlm_distributed_init: { args: ["bool", bytes], returns: i32 },
  mlxlm_distributed_connect: { args: [i32, bytes, i32, bytes, "f64"], returns: i32 },
  mlxlm_group_rank: { args: [i32], returns: i32 },
  mlxlm_group_size: { args: [i32], returns: i32 },
  mlxlm_group_split: { args: [i32, i32, i32], returns: i32 },
  mlxlm_peers_offer: { args: [i32], returns: i32 },
  mlxlm_peers_join: { args: [i32, bytes, i32], returns: i32 },
  mlxlm_messages_set_aside: { args: none, returns: i32 },
  mlxlm_messages_restore: { args: none, returns: i32 },
  mlxlm_peers_use: { args: [i32, "bool", "f64"], returns: i32 },
} as const satisfies Record<string, FFIFunction>;

// What C code reads from the environment must be set there: assigning to process.env stays within JavaScript.
const { setenv } = openLibrary(process.platform === "darwin" ? "libSystem.B.dylib" : "libc.so.6", {
  setenv: { args: ["ptr", "ptr", i32], returns: i32 },
});
const unlessSet = 0;
for (const [name, { set }] of listedVariables()) {
  if (set !== undefined) setenv(Buffer.from(`${name}\0`), Buffer.from(`${set}\0`), unlessSet);
}

checkThreads();

const library = nativeLibrary();
for (const [name, value] of Object.entries(cudaEnvironment(buildFolder(library)))) {
  setenv(Buffer.from(`${name}\0`), Buffer.from(`${value}\0`), unlessSet);
}

export const native = openLibrary(library, { ...handSymbols, ...opSymbols });

native.mlxlm_attach_mailbox(ptr(mail), mail.length, ptr(numberMail));
