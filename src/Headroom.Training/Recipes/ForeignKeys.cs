using System.Reflection;
using Headroom.Core;

namespace Headroom.Training.Recipes;

/// <summary>
/// Keys that people bring from the recipes and scripts of TRL (SFTConfig, ScriptArguments), transformers
/// (TrainingArguments, BitsAndBytesConfig, from_pretrained), PEFT (LoraConfig), Axolotl, Unsloth and LLaMA-Factory, and
/// what stands for them here.
/// </summary>
internal static class ForeignKeys
{
    // A row: what it stands for, then the names of others. The first word of a row's meaning says which kind it is:
    // keys of ours (with sections; the names of one key stand at the option), "always", "flag" (of the command line),
    // or "none".
    private static readonly (string Meaning, string Names)[] Table =
    [
        // Called otherwise here.
        ("training.adam_beta1 and training.adam_beta2", "adam_betas betas"),

        // Always so.
        ("always so: rows of a batch lie one behind the other, padding is not computed and rows never see each other",
            "packing sample_packing eval_sample_packing padding_free pad_to_sequence_len pad_to_multiple_of "
                + "packing_strategy eval_packing sample_packing_eff_est pack padding"
        ),
        ("always so: attention never holds a whole matrix of scores",
            "flash_attention flash_attn attn_implementation use_flash_attention_2 use_flash_attention sdp_attention "
                + "xformers_attention use_sdpa_attention eager_attention"
        ),
        (
            "always so: loss, norms and rotations are fused",
            "use_liger use_liger_kernel liger_rope liger_rms_norm liger_swiglu liger_fused_linear_cross_entropy "
                + "liger_glu_activation cut_cross_entropy use_unsloth unsloth_lora_mlp_kernel unsloth_lora_qkv_kernel"
        ),
        (
            "always so: AdamW with float32 states, all tensors in one launch",
            "optim optimizer optim_args use_adafactor adafactor adamw_8bit optim_target_modules"),
        ("always so: a causal language model", "task_type model_type type_of_model"),
        ("always so: adapters have no biases", "bias"),
        ("always so: adapters are saved as safetensors, in PEFT's form", "save_safetensors save_only_model save_model"),
        ("always so: bytes, in the place of the weights", "bnb_4bit_quant_storage"),
        ("always so: a finished run is never overwritten", "overwrite_output_dir overwrite_cache"),
        ("always so: greater or smaller is better by the metric", "greater_is_better"),
        (
            "always so: the loss is a mean over the labelled tokens of the whole update",
            "average_tokens_across_devices num_items_in_batch"),
        ("always so: no code that comes with a model is run", "trust_remote_code"),
        ("always so: the data is read by the run itself, without worker processes",
            "dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor dataloader_persistent_workers "
                + "dataloader_drop_last dataset_num_proc dataset_processes preprocessing_num_workers num_workers"
        ),
        ("always so: columns that are not named are not read", "remove_unused_columns"),
        (
            "always so: only adapters and lora.modules_to_save are trained",
            "inference_mode prepare_model_for_kbit_training is_trainable fan_in_fan_out lora_fan_in_fan_out"),
        (
            "always so: recomputed layers give the same bits",
            "gradient_checkpointing_kwargs use_reentrant preserve_rng_state"),
        ("always so: a resumed run goes on at its row, bit for bit", "ignore_data_skip full_determinism deterministic"),
        ("always so: nothing leaves the machine; events.jsonl and report.html of the run folder hold everything",
            "report_to logging_dir wandb wandb_project wandb_entity wandb_run_id wandb_watch wandb_name "
                + "wandb_log_model mlflow_tracking_uri mlflow_experiment_name comet_project_name swanlab_project "
                + "trackio_space_id use_tensorboard hf_use_auth_token disable_tqdm log_level"
        ),
        ("always so: headroom train trains and tests, headroom eval evaluates", "do_train do_predict"),
        (
            "always so: rows are read and encoded when a run starts",
            "dataset_prepared_path shuffle_merged_datasets streaming preprocessing_batch_size"),

        // A flag, a variable, an argument of a schedule.
        (
            "flag: training.lr_scheduler_type cosine_with_min_lr takes min_lr_rate in training.lr_scheduler_kwargs",
            "cosine_min_lr_ratio"),
        (
            "flag: train --resume goes on with a stopped run",
            "resume_from_checkpoint auto_resume_from_checkpoints resume resume_adapter_file"),
        ("flag: org/name@revision in models.path names a revision", "revision model_revision"),
        ("flag: the variable HF_TOKEN holds the token", "token hf_token use_auth_token hub_token"),
        ("flag: the variable HF_HOME says where the cache is", "cache_dir"),
        (
            "flag: headroom export --format writes a merged model or a GGUF file",
            "merge_lora merge_adapter save_merged push_to_gguf export_dir gguf"),

        // Not there.
        (
            "none: it trains on one device",
            "deepspeed fsdp fsdp_config fsdp_transformer_layer_cls_to_wrap ddp_backend ddp_timeout "
                + "ddp_find_unused_parameters ddp_bucket_cap_mb local_rank tensor_parallel_size accelerator_config "
                + "world_size num_gpus devices tpu_num_cores parallelism_config"
        ),
        (
            "none: nothing is uploaded; adapters are in PEFT's form, so the hub's own tools take them",
            "push_to_hub hub_model_id hub_strategy hub_private_repo hub_always_push"),
        ("none: adapters never sit on embeddings", "loraplus_lr_embedding"),
        (
            "none: besides training.loraplus_lr_ratio it has one learning rate",
            "embedding_lr embedding_lr_scale embedding_learning_rate lr_groups"),
        ("none: a cosine schedule ends at the last update, not before it", "cosine_constant_lr_ratio"),
        (
            "none: evaluation takes batches of per_device_eval_batch_size, when eval_strategy says",
            "eval_accumulation_steps eval_delay eval_do_concat_batches batch_eval_metrics prediction_loss_only"),
        ("none: its memory is one reservation", "torch_empty_cache_steps"),
        (
            "none: the log has tokens and seconds of every step",
            "include_tokens_per_second include_num_input_tokens_seen"),
        ("none: it searches no batch size; headroom plan says what fits", "auto_find_batch_size"),
        (
            "none: its kernels are compiled already",
            "torch_compile torch_compile_backend torch_compile_mode jit_mode_eval tf32 use_ipex"),
        (
            "none: it keeps nothing on the host between steps",
            "offload_folder offload_state_dict low_cpu_mem_usage llm_int8_enable_fp32_cpu_offload "
                + "activation_offloading layer_offloading lora_on_cpu"
        ),
        (
            "none: the parts that stay unquantized are fixed (embeddings, norms and head)",
            "llm_int8_threshold llm_int8_skip_modules llm_int8_has_fp16_weight modules_to_not_convert"),
        ("always so: conversations are rendered by the chat template", "apply_chat_template dataset_kwargs"),
        (
            "always so: an assistant goes by assistant, gpt, model or bot, a user by user or human; others are refused",
            "roles_map"),
        (
            "none: it has no other kind of adapter",
            "peft_type use_peft lora_fa galore_target_modules use_galore relora_steps vera_init boft_block_size "
                + "oft_block_size trainable_token_indices layer_replication use_qalora target_parameters "
                + "megatron_config"
        ),
        (
            "none: the model's tokenizer stays as it is",
            "special_tokens add_special_tokens new_tokens resize_token_embeddings_to_32x pad_token eos_token "
                + "unk_token bos_token resize_vocab"
        ),
        (
            "always so: the reference of preferences is the base with the adapters left out",
            "ref_model sync_ref_model precompute_ref_log_probs reference_free"),
        ("none: no reward model is trained, and none judges", "reward_model"),
    ];

    // What an option says of its own names, as [AlsoCalled].
    private static IEnumerable<(string Meaning, string Names)> Options(Type type, string above) =>
        RecipeLoader.Keys(type).SelectMany(k => k.Value.PropertyType == typeof(List<ModelOptions>)
            ? RecipeLoader.Keys(typeof(ModelOptions)).SelectMany(m => Named(m.Value, $"{k.Key}: [{{ {m.Key}: ... }}]"))
            : RecipeLoader.IsSection(k.Value.PropertyType) ? Options(k.Value.PropertyType, above + k.Key + ".")
            : Named(k.Value, above + k.Key));

    private static IEnumerable<(string, string)> Named(PropertyInfo option, string path) =>
        option.GetCustomAttribute<AlsoCalledAttribute>() is { } a ? [(path, string.Join(' ', a.Names))] : [];

    private static readonly Dictionary<string, string> Meanings = Options(typeof(Recipe), "")
        .Concat(Table)
        .SelectMany(row => row.Names.Split(' ').Select(n => (Name: n, row.Meaning)))
        .ToDictionary(p => p.Name, p => p.Meaning, StringComparer.OrdinalIgnoreCase);

    /// <summary>Every foreign name with what stands for it, for the tests.</summary>
    public static IEnumerable<(string Name, string Meaning)> All => Meanings.Select(m => (m.Key, m.Value));

    /// <summary>
    /// What to do about a key that people bring from elsewhere, as a sentence; null for one that is not known.
    /// </summary>
    /// <param name="key">Without its sections.</param>
    public static string? Advice(string key)
    {
        if (!Meanings.TryGetValue(key, out string? meaning)) return null;
        int colon = meaning.IndexOf(": ", StringComparison.Ordinal);
        return (colon < 0 ? "" : meaning[..colon]) switch
        {
            "always so" => $"That is always so: {meaning[(colon + 2)..]}. Leave the key out.",
            "flag" => $"It is no key of a recipe: {meaning[(colon + 2)..]}.",
            "none" => $"Headroom has nothing for it: {meaning[(colon + 2)..]}. Leave the key out.",
            _ => $"Here it is called {meaning}.",
        };
    }
}
