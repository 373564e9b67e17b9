namespace Headroom.Training;

/// <summary>
/// Keys that people bring from the recipes and scripts of TRL (SFTConfig, ScriptArguments), transformers (TrainingArguments, BitsAndBytesConfig, from_pretrained), PEFT (LoraConfig),
/// Axolotl, Unsloth and LLaMA-Factory, and what stands for them here.
/// </summary>
internal static class ForeignKeys
{
    // A row: what it stands for, then the names of others. The first word of a row's meaning says which kind it is:
    // a key of ours (with sections), "always", "flag" (of the command line), or "none".
    private static readonly (string Meaning, string Names)[] Table =
    [
        // Called otherwise here.
        ("models: [{ path: ... }]", "base_model model_name_or_path model_name pretrained_model_name_or_path model_id base_model_name_or_path model base_model_config"),
        ("models: [{ tokenizer: ... }]", "tokenizer_name tokenizer_name_or_path processing_class tokenizer_config tokenizer"),
        ("task.max_seq_length", "max_length sequence_len max_seq_len cutoff_len model_max_length block_size seq_length seq_len"),
        ("task.template", "prompt_template prompt_style prompt_format formatting_func format instruction_template response_template"),
        ("task.labels", "id2label label2id label_words verbalizer class_names"),
        ("task.loss", "train_on_inputs completion_only_loss assistant_only_loss train_on_responses_only mask_prompt train_on_prompt roles_to_train train_on_eos"),
        ("training.per_device_train_batch_size", "micro_batch_size batch_size train_batch_size per_gpu_train_batch_size train_micro_batch_size_per_gpu"),
        ("training.per_device_eval_batch_size", "eval_batch_size per_gpu_eval_batch_size"),
        ("training.gradient_accumulation_steps", "grad_accum accumulation_steps gradient_accumulation accumulate_grad_batches"),
        ("training.learning_rate", "lr"),
        ("training.num_train_epochs", "num_epochs epochs n_epochs max_epochs"),
        ("training.max_steps", "iters num_steps num_training_steps total_steps max_iters"),
        ("training.lr_scheduler_type", "lr_scheduler scheduler lr_schedule"),
        ("training.warmup_ratio", "warmup warmup_pct"),
        ("training.warmup_steps", "num_warmup_steps warmup_iters"),
        ("training.max_grad_norm", "gradient_clipping grad_clip clip_grad_norm gradient_clip_val max_gradient_norm"),
        ("training.adam_beta1 and training.adam_beta2", "adam_betas betas"),
        ("training.adam_epsilon", "eps epsilon adam_eps"),
        ("training.seed", "random_state random_seed data_seed"),
        ("training.eval_strategy", "evaluation_strategy do_eval evals_per_epoch eval_on_start"),
        ("training.eval_steps", "steps_per_eval val_check_interval"),
        ("training.save_steps", "save_every saves_per_epoch save_every_n_steps"),
        ("training.save_total_limit", "keep_checkpoints max_checkpoints"),
        ("training.logging_steps", "logging_strategy logging_first_step steps_per_report log_every_n_steps"),
        ("training.gradient_checkpointing", "use_gradient_checkpointing activation_checkpointing grad_checkpoint"),
        ("training.train_sampling_strategy", "group_by_length length_column_name shuffle shuffle_dataset"),
        ("training.precision", "bf16 fp16 bfloat16 float16 torch_dtype dtype bnb_4bit_compute_dtype half_precision_backend bf16_full_eval fp16_full_eval mixed_precision autocast_adapter_dtype"),
        ("lora.r", "lora_r rank lora_rank peft_r"),
        ("lora.lora_alpha", "alpha peft_alpha scale"),
        ("lora.lora_dropout", "dropout peft_dropout"),
        ("lora.target_modules", "lora_target_modules lora_target_linear lora_target peft_target_modules lora_layers keys"),
        ("lora.modules_to_save", "lora_modules_to_save additional_target"),
        ("lora.use_dora", "peft_use_dora dora"),
        ("lora.use_rslora", "peft_use_rslora rslora"),
        ("lora.init_lora_weights", "peft_init_lora_weights pissa_init"),
        ("lora.layers_to_transform", "peft_layers_to_transform num_layers"),
        ("quantization.load_in_4bit", "adapter quantization_bit finetuning_type load_4bit"),
        ("quantization.load_in_8bit", "load_8bit int8"),
        ("quantization.bnb_4bit_use_double_quant", "double_quantization use_double_quant use_nested_quant"),
        ("quantization.bnb_4bit_quant_type", "quant_type quantization_type"),
        ("data.train", "train_file dataset_name datasets dataset dataset_path train_dataset train_data data_path data_files dataset_dir"),
        ("data.validation", "validation_file eval_dataset val_file eval_file val_data validation_dataset dev_file"),
        ("data.test", "test_file test_datasets test_dataset test_data"),
        ("data.validation_fraction", "val_set_size val_size validation_split_percentage eval_fraction test_size validation_split"),
        ("data.text_field", "dataset_text_field text_column text_column_name field_input text_key"),
        ("data.label_field", "label_column label_column_name field_output label_key label_names"),
        ("data.max_train_rows", "max_train_samples max_samples num_train_samples"),
        ("data.max_eval_rows", "max_eval_samples max_val_samples"),
        ("data.max_test_rows", "max_predict_samples max_test_samples"),
        ("name", "run_name project_name output_dir experiment_name adapter_path save_dir"),
        ("device", "use_cpu no_cuda device_map use_mps_device"),
        ("vram", "max_memory gpu_memory_limit gpu_memory_utilization memory_limit"),

        // Always so.
        ("always so: rows of a batch lie one behind the other, padding is not computed and rows never see each other",
            "packing sample_packing eval_sample_packing padding_free pad_to_sequence_len pad_to_multiple_of packing_strategy eval_packing sample_packing_eff_est pack padding"),
        ("always so: attention never holds a whole matrix of scores",
            "flash_attention flash_attn attn_implementation use_flash_attention_2 use_flash_attention sdp_attention xformers_attention use_sdpa_attention eager_attention"),
        ("always so: loss, norms and rotations are fused", "use_liger use_liger_kernel liger_rope liger_rms_norm liger_swiglu liger_fused_linear_cross_entropy liger_glu_activation cut_cross_entropy use_unsloth unsloth_lora_mlp_kernel unsloth_lora_qkv_kernel"),
        ("always so: AdamW with float32 states, all tensors in one launch", "optim optimizer optim_args use_adafactor adafactor adamw_8bit optim_target_modules"),
        ("always so: a causal language model", "task_type model_type type_of_model"),
        ("always so: adapters have no biases", "bias"),
        ("always so: adapters are saved as safetensors, in PEFT's form", "save_safetensors save_only_model save_model"),
        ("always so: bytes, in the place of the weights", "bnb_4bit_quant_storage"),
        ("always so: a finished run is never overwritten", "overwrite_output_dir overwrite_cache"),
        ("always so: greater or smaller is better by the metric", "greater_is_better"),
        ("always so: the loss is a mean over the labelled tokens of the whole update", "average_tokens_across_devices num_items_in_batch"),
        ("always so: no code that comes with a model is run", "trust_remote_code"),
        ("always so: the data is read by the run itself, without worker processes",
            "dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor dataloader_persistent_workers dataloader_drop_last dataset_num_proc dataset_processes preprocessing_num_workers num_workers"),
        ("always so: columns that are not named are not read", "remove_unused_columns"),
        ("always so: only adapters and lora.modules_to_save are trained", "inference_mode prepare_model_for_kbit_training is_trainable fan_in_fan_out lora_fan_in_fan_out"),
        ("always so: recomputed layers give the same bits", "gradient_checkpointing_kwargs use_reentrant preserve_rng_state"),
        ("always so: a resumed run goes on at its row, bit for bit", "ignore_data_skip full_determinism deterministic"),
        ("always so: nothing leaves the machine; events.jsonl and report.html of the run folder hold everything",
            "report_to logging_dir wandb wandb_project wandb_entity wandb_run_id wandb_watch wandb_name wandb_log_model mlflow_tracking_uri mlflow_experiment_name comet_project_name swanlab_project trackio_space_id use_tensorboard hf_use_auth_token disable_tqdm log_level"),
        ("always so: headroom train trains and tests, headroom eval evaluates", "stage do_train do_predict"),
        ("always so: rows are read and encoded when a run starts", "dataset_prepared_path shuffle_merged_datasets streaming preprocessing_batch_size"),

        // A flag or a variable.
        ("flag: train --resume goes on with a stopped run", "resume_from_checkpoint auto_resume_from_checkpoints resume resume_adapter_file"),
        ("flag: org/name@revision in models.path names a revision", "revision model_revision"),
        ("flag: the variable HF_TOKEN holds the token", "token hf_token use_auth_token hub_token"),
        ("flag: the variable HF_HOME says where the cache is", "cache_dir"),
        ("flag: headroom export --format writes a merged model or a GGUF file", "merge_lora merge_adapter save_merged push_to_gguf export_dir gguf"),

        // Not there.
        ("none: it trains on one device", "deepspeed fsdp fsdp_config fsdp_transformer_layer_cls_to_wrap ddp_backend ddp_timeout ddp_find_unused_parameters ddp_bucket_cap_mb local_rank tensor_parallel_size accelerator_config world_size num_gpus devices tpu_num_cores parallelism_config"),
        ("none: nothing is uploaded; adapters are in PEFT's form, so the hub's own tools take them", "push_to_hub hub_model_id hub_strategy hub_private_repo hub_always_push"),
        ("none: it has no early stopping; the adapter of the best evaluation is kept (load_best_model_at_end)", "early_stopping_patience early_stopping_threshold early_stopping"),
        ("none: it has no noise on embeddings and no smoothed labels", "neftune_noise_alpha label_smoothing_factor label_smoothing"),
        ("none: it has one learning rate for all adapters", "loraplus_lr_ratio loraplus_lr_embedding embedding_lr cosine_min_lr_ratio cosine_constant_lr_ratio lr_groups"),
        ("none: evaluation takes batches of per_device_eval_batch_size, when eval_strategy says", "eval_accumulation_steps eval_delay eval_do_concat_batches batch_eval_metrics prediction_loss_only"),
        ("none: its memory is one reservation", "torch_empty_cache_steps"),
        ("none: the log has tokens and seconds of every step", "include_tokens_per_second include_num_input_tokens_seen"),
        ("none: it searches no batch size; headroom plan says what fits", "auto_find_batch_size"),
        ("none: its kernels are compiled already", "torch_compile torch_compile_backend torch_compile_mode jit_mode_eval tf32 use_ipex"),
        ("none: it keeps nothing on the host between steps", "offload_folder offload_state_dict low_cpu_mem_usage llm_int8_enable_fp32_cpu_offload activation_offloading layer_offloading lora_on_cpu"),
        ("none: the parts that stay unquantized are fixed (embeddings, norms and head)", "llm_int8_threshold llm_int8_skip_modules llm_int8_has_fp16_weight modules_to_not_convert"),
        ("none: a row becomes a prompt by task.template, and its answer is a label word", "chat_template chat_template_path messages_field conversation_column field_messages field_instruction input_column output_column dataset_kwargs roles_map apply_chat_template"),
        ("none: it has no other kind of adapter", "peft_type use_peft lora_fa galore_target_modules use_galore relora_steps vera_init boft_block_size oft_block_size trainable_token_indices layer_replication use_qalora target_parameters megatron_config"),
        ("none: the model's tokenizer stays as it is", "special_tokens add_special_tokens new_tokens resize_token_embeddings_to_32x pad_token eos_token unk_token bos_token resize_vocab"),
        ("none: it learns from labelled rows only", "beta rl dpo_beta reward_model loss_type ref_model sync_ref_model desirable_weight"),
    ];

    private static readonly Dictionary<string, string> Meanings = Table.SelectMany(row => row.Names.Split(' ').Select(n => (Name: n, row.Meaning)))
        .ToDictionary(p => p.Name, p => p.Meaning, StringComparer.OrdinalIgnoreCase);

    /// <summary>Every foreign name with what stands for it, for the tests.</summary>
    public static IEnumerable<(string Name, string Meaning)> All => Meanings.Select(m => (m.Key, m.Value));

    /// <summary>What to do about a key that people bring from elsewhere, as a sentence; null for one that is not known.</summary>
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
