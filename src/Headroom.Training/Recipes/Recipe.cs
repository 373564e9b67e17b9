using Headroom.Core;
using Headroom.Inference;
using Headroom.Training.Runs;
using Headroom.Training.Tasks;

namespace Headroom.Training.Recipes;

/// <summary>
/// A run, as written in a YAML recipe. Property names in the file are snake_case and follow Hugging Face's
/// TrainingArguments and PEFT's LoraConfig. The defaults stand here and nowhere else.
/// </summary>
public sealed class Recipe
{
    /// <summary>Name of the run folder. A folder that was renamed holds the same run.</summary>
    [Identity(Identity.None)]
    [AlsoCalled("run_name project_name output_dir experiment_name adapter_path save_dir")]
    public string Name { get; set; } = "run";
    /// <summary>Base models: one for train, two or more for a duel.</summary>
    public List<ModelOptions> Models { get; set; } = [];
    /// <summary>How the base is quantized.</summary>
    public QuantizationOptions Quantization { get; set; } = new();
    /// <summary>Adapters.</summary>
    public LoraConfig Lora { get; set; } = new();
    /// <summary>Optimization.</summary>
    public TrainingOptions Training { get; set; } = new();
    /// <summary>Rows.</summary>
    public DataOptions Data { get; set; } = new();
    /// <summary>What a row becomes and what is measured.</summary>
    public TaskOptions Task { get; set; } = new();
    /// <summary>Where it runs; auto takes a GPU when there is one.</summary>
    [Identity(Identity.Resolved)]
    [AlsoCalled("use_cpu no_cuda device_map use_mps_device")]
    public DeviceChoice Device { get; set; }
    /// <summary>Budget for the whole process, such as 24GiB; null = what the device has.</summary>
    [Identity(Identity.None)]
    [AlsoCalled("max_memory gpu_memory_limit gpu_memory_utilization memory_limit")]
    public string? Vram { get; set; }
    /// <summary>
    /// Seeds, each a run of its own, one after the other: train has them in the folders seed-N of the run, and reports
    /// their spread; empty = training.seed.
    /// </summary>
    [Identity(Identity.None)]
    public List<int> Seeds { get; set; } = [];
}

/// <summary>One base model.</summary>
public sealed class ModelOptions
{
    /// <summary>
    /// Folder, .gguf or .safetensors file, relative to the recipe; or a hub name, org/name or org/name@revision.
    /// </summary>
    [Identity(Identity.None)]
    [AlsoCalled("base_model model_name_or_path model_name pretrained_model_name_or_path model_id "
        + "base_model_name_or_path model base_model_config")]
    public string Path { get; set; } = "";
    /// <summary>Name in reports; null = the file name.</summary>
    [Identity(Identity.None)]
    public string? Name { get; set; }
    /// <summary>Tokenizer folder, file or hub name; null = from the model.</summary>
    [Identity(Identity.None)]
    [AlsoCalled("tokenizer_name tokenizer_name_or_path processing_class tokenizer_config tokenizer")]
    public string? Tokenizer { get; set; }
    /// <summary>The hub name that <see cref="Path"/> was resolved from. A field: it is no key of a recipe.</summary>
    public string? HubId;
    /// <summary>The same for <see cref="Tokenizer"/>.</summary>
    public string? TokenizerHub;
    /// <summary>
    /// What an adapter names as its base: the hub name, which readers elsewhere can load, else the name in reports.
    /// </summary>
    public string BaseName() => HubId?.Split('@')[0] ?? TrainRun.ModelName(this);
}

/// <summary>Optimization (transformers <c>TrainingArguments</c>).</summary>
public sealed class TrainingOptions
{
    /// <summary>Rows of a micro-batch.</summary>
    [Identity(Identity.Numbers)]
    [Range(1)]
    [AlsoCalled("micro_batch_size batch_size train_batch_size per_gpu_train_batch_size "
        + "train_micro_batch_size_per_gpu")]
    public int PerDeviceTrainBatchSize { get; set; } = 8;
    /// <summary>
    /// Tokens of a micro-batch at most, in the place of a number of rows: rows are put together so that little of it is
    /// left (best-fit decreasing); 0 = per_device_train_batch_size rows.
    /// </summary>
    [Identity(Identity.Numbers)]
    [Range(0, 1 << 24)]
    [AlsoCalled("max_tokens_per_batch tokens_per_batch max_num_tokens batch_tokens")]
    public int TokensPerDeviceBatch { get; set; }
    /// <summary>Rows of an evaluation batch.</summary>
    [Identity(Identity.None)]
    [Range(1)]
    [AlsoCalled("eval_batch_size per_gpu_eval_batch_size")]
    public int PerDeviceEvalBatchSize { get; set; } = 8;
    /// <summary>Micro-batches of an update.</summary>
    [Identity(Identity.Numbers)]
    [Range(1)]
    [AlsoCalled("grad_accum accumulation_steps gradient_accumulation accumulate_grad_batches")]
    public int GradientAccumulationSteps { get; set; } = 1;
    /// <summary>Peak learning rate.</summary>
    [Identity(Identity.Numbers)]
    [Range(0, OpenLow = true)]
    [AlsoCalled("lr")]
    public double LearningRate { get; set; } = 5e-5;
    /// <summary>
    /// LoRA+: the learning rate of the adapters' B matrices (and, as in PEFT, of magnitudes, norms and biases) over
    /// learning_rate, at which A is trained; 1 = one rate for all.
    /// </summary>
    [Identity(Identity.Numbers)]
    [Range(0, OpenLow = true)]
    [AlsoCalled("lorap_lr_ratio")]
    public double LoraplusLrRatio { get; set; } = 1;
    /// <summary>Decoupled weight decay.</summary>
    [Identity(Identity.Numbers)]
    [Range(0)]
    public double WeightDecay { get; set; }
    /// <summary>First moment decay.</summary>
    [Identity(Identity.Numbers)]
    [Range(0, 1, OpenHigh = true)]
    public double AdamBeta1 { get; set; } = 0.9;
    /// <summary>Second moment decay.</summary>
    [Identity(Identity.Numbers)]
    [Range(0, 1, OpenHigh = true)]
    public double AdamBeta2 { get; set; } = 0.999;
    /// <summary>Denominator constant.</summary>
    [Identity(Identity.Numbers)]
    [Range(0, OpenLow = true)]
    [AlsoCalled("eps epsilon adam_eps")]
    public double AdamEpsilon { get; set; } = 1e-8;
    /// <summary>
    /// Share of each label's loss that is the mean of -log p over the whole vocabulary (transformers' LabelSmoother).
    /// As there, evaluations made of the losses of labelled tokens are smoothed too; label_words' loss is not.
    /// </summary>
    [Identity(Identity.Numbers)]
    [Range(0, 1, OpenHigh = true)]
    [AlsoCalled("label_smoothing")]
    public double LabelSmoothingFactor { get; set; }
    /// <summary>
    /// NEFTune: uniform noise of alpha / sqrt(tokens of the row * hidden size) on the embeddings of training passes, 0
    /// = off; the paper takes 5, 10 and 15. (transformers takes the tokens of the batch's longest row, padding too.)
    /// </summary>
    [Identity(Identity.Numbers)]
    [Range(0)]
    [AlsoCalled("neftune_alpha noisy_embedding_alpha")]
    public double NeftuneNoiseAlpha { get; set; }
    /// <summary>Clip to this global norm; 0 = off.</summary>
    [Identity(Identity.Numbers)]
    [Range(0)]
    [AlsoCalled("gradient_clipping grad_clip clip_grad_norm gradient_clip_val max_gradient_norm")]
    public double MaxGradNorm { get; set; } = 1;
    /// <summary>Epochs when max_steps is not set.</summary>
    [Identity(Identity.MayRise)]
    [Range(0, 1e6, OpenLow = true)]
    [AlsoCalled("num_epochs epochs n_epochs max_epochs")]
    public double NumTrainEpochs { get; set; } = 3;
    /// <summary>Updates; -1 = by epochs.</summary>
    [Identity(Identity.MayRise)]
    [AlsoCalled("iters num_steps num_training_steps total_steps max_iters")]
    public int MaxSteps { get; set; } = -1;
    /// <summary>See the schedules of transformers.</summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("lr_scheduler scheduler lr_schedule")]
    public SchedulerType LrSchedulerType { get; set; }
    /// <summary>
    /// Arguments of the schedule, by name: min_lr or min_lr_rate, num_cycles, power, lr_end, timescale, num_decay_steps
    /// and so on.
    /// </summary>
    [Identity(Identity.Numbers)]
    public Dictionary<string, string> LrSchedulerKwargs { get; set; } = [];
    /// <summary>Warm-up updates.</summary>
    [Identity(Identity.Numbers)]
    [Range(0)]
    [AlsoCalled("num_warmup_steps warmup_iters")]
    public int WarmupSteps { get; set; }
    /// <summary>Warm-up as a share of all updates.</summary>
    [Identity(Identity.Numbers)]
    [Range(0, 1)]
    [AlsoCalled("warmup warmup_pct")]
    public double WarmupRatio { get; set; }
    /// <summary>Seed of adapters, order and dropout.</summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("random_state random_seed data_seed")]
    public int Seed { get; set; } = 42;
    /// <summary>Updates between lines with the mean loss since the last one; 0 = progress by time only.</summary>
    [Identity(Identity.None)]
    [Range(0)]
    [AlsoCalled("logging_strategy logging_first_step steps_per_report log_every_n_steps")]
    public int LoggingSteps { get; set; }
    /// <summary>When it evaluates: never, every eval_steps updates, or after each epoch.</summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("evaluation_strategy do_eval evals_per_epoch eval_on_start")]
    public IntervalStrategy EvalStrategy { get; set; }
    /// <summary>Updates between evaluations.</summary>
    [Identity(Identity.Numbers)]
    [Range(1)]
    [AlsoCalled("steps_per_eval val_check_interval")]
    public int EvalSteps { get; set; } = 500;
    /// <summary>
    /// Evaluations in a row without a better metric_for_best_model after which the run ends, with the best adapter
    /// (transformers' EarlyStoppingCallback). More steps do not make it go on; 0 = it runs to its end.
    /// </summary>
    [Identity(Identity.Numbers)]
    [Range(0)]
    [AlsoCalled("early_stopping")]
    public int EarlyStoppingPatience { get; set; }
    /// <summary>How much better the metric has to be to count for early_stopping_patience.</summary>
    [Identity(Identity.Numbers)]
    [Range(0)]
    public double EarlyStoppingThreshold { get; set; }
    /// <summary>When it saves a checkpoint: never, every save_steps updates, or after each epoch.</summary>
    [Identity(Identity.None)]
    public IntervalStrategy SaveStrategy { get; set; } = IntervalStrategy.Steps;
    /// <summary>Updates between checkpoints.</summary>
    [Identity(Identity.None)]
    [Range(1)]
    [AlsoCalled("save_every saves_per_epoch save_every_n_steps")]
    public int SaveSteps { get; set; } = 500;
    /// <summary>Checkpoints kept (the best always is); 0 = all.</summary>
    [Identity(Identity.None)]
    [Range(0)]
    [AlsoCalled("keep_checkpoints max_checkpoints")]
    public int SaveTotalLimit { get; set; }
    /// <summary>
    /// End with the adapter of the best evaluation, when there was one (transformers' default is false; here a run's
    /// best/ is what its name says).
    /// </summary>
    [Identity(Identity.Numbers)]
    public bool LoadBestModelAtEnd { get; set; } = true;
    /// <summary>
    /// A metric of the task (<see cref="TaskType.Metrics"/>; loss is one of each), whose direction says whether greater
    /// is better; null = what the task takes, of label words f1. transformers' eval_ may stand before a name.
    /// </summary>
    [Identity(Identity.Numbers)]
    public string? MetricForBestModel { get; set; }
    /// <summary>Recompute every layer's forward in the backward pass; null = as little as the budget allows.</summary>
    [Identity(Identity.None)]
    [AlsoCalled("use_gradient_checkpointing activation_checkpointing grad_checkpoint")]
    public bool? GradientCheckpointing { get; set; }
    /// <summary>Type of the activations; auto is fp32 on a CPU, and on a GPU bf16 or what it has.</summary>
    [Identity(Identity.Resolved)]
    [AlsoCalled("bf16 fp16 bfloat16 float16 torch_dtype dtype bnb_4bit_compute_dtype half_precision_backend "
        + "bf16_full_eval fp16_full_eval mixed_precision autocast_adapter_dtype")]
    public Precision Precision { get; set; }
    /// <summary>Order of the training rows.</summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("group_by_length length_column_name shuffle shuffle_dataset")]
    public SamplingStrategy TrainSamplingStrategy { get; set; }
    /// <summary>
    /// On a GPU, replay micro-steps of a shape that was seen before as CUDA graphs; null = where launching them takes
    /// longer than they do. Ragged batches are padded to few shapes there, which changes their rounding.
    /// </summary>
    [Identity(Identity.Resolved)]
    public bool? CudaGraphs { get; set; }
    /// <summary>
    /// On a GPU, memory in which quantized weights stay expanded to 16 bits between products, which saves expanding
    /// them anew (results do not change by a bit): auto = what vram leaves, none without vram; none; or a size such as
    /// 4GiB, as far as vram allows.
    /// </summary>
    [Identity(Identity.None)]
    public string ExpandedWeights { get; set; } = "auto";
}

/// <summary>Rows to train and evaluate on.</summary>
public sealed class DataOptions
{
    /// <summary>
    /// Training rows: JSONL, JSON, CSV, TSV, text, Parquet, an aclImdb folder, embedded:reviews, or the hub name of a
    /// data set (its train split).
    /// </summary>
    [Identity(Identity.None)]
    [AlsoCalled("train_file dataset_name datasets dataset dataset_path train_dataset train_data data_path "
        + "data_files dataset_dir")]
    public string Train { get; set; } = "";
    /// <summary>
    /// Validation rows (of a hub data set, its validation split); null = a stratified part of train when
    /// validation_fraction is set, else none.
    /// </summary>
    [Identity(Identity.None)]
    [AlsoCalled("validation_file eval_dataset val_file eval_file val_data validation_dataset dev_file")]
    public string? Validation { get; set; }
    /// <summary>Test rows (of a hub data set, its test split).</summary>
    [Identity(Identity.None)]
    [AlsoCalled("test_file test_datasets test_dataset test_data")]
    public string? Test { get; set; }
    /// <summary>Field of the text.</summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("dataset_text_field text_column text_column_name field_input text_key")]
    public string TextField { get; set; } = "text";
    /// <summary>Field of the label.</summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("label_column label_column_name field_output label_key label_names")]
    public string LabelField { get; set; } = "label";
    /// <summary>
    /// What the file calls the columns that a form of rows has, such as messages: dialogue or prompt: question; those
    /// that are not named here have the form's names.
    /// </summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("column_map columns_mapping field_messages messages_field conversation_column prompt_feature "
        + "completion_feature chat_feature field_instruction input_column output_column remap_columns")]
    public Dictionary<string, string> Columns { get; set; } = [];
    /// <summary>
    /// What happens to a row that cannot be read: the run ends before it begins, or the row is left out and counted.
    /// </summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("skip_bad_rows on_bad_lines")]
    public BadRows OnBadRow { get; set; }
    /// <summary>csv and tsv: whether the first line is a header; null = when it names one of the fields.</summary>
    [Identity(Identity.Rows)]
    public bool? Header { get; set; }
    /// <summary>Share of train held out when there is no validation file.</summary>
    [Identity(Identity.Rows)]
    [Range(0, 1, OpenHigh = true)]
    [AlsoCalled("val_set_size val_size validation_split_percentage eval_fraction test_size validation_split")]
    public double ValidationFraction { get; set; }
    /// <summary>The same for test rows, when there is no test file.</summary>
    [Identity(Identity.Rows)]
    [Range(0, 1, OpenHigh = true)]
    [AlsoCalled("test_split test_split_percentage")]
    public double TestFraction { get; set; }
    /// <summary>First rows (after a seeded, stratified shuffle); 0 = all.</summary>
    [Identity(Identity.Rows)]
    [Range(0)]
    [AlsoCalled("max_train_samples max_samples num_train_samples")]
    public int MaxTrainRows { get; set; }
    /// <summary>The same for validation rows.</summary>
    [Identity(Identity.Rows)]
    [Range(0)]
    [AlsoCalled("max_eval_samples max_val_samples")]
    public int MaxEvalRows { get; set; }
    /// <summary>The same for test rows.</summary>
    [Identity(Identity.Rows)]
    [Range(0)]
    [AlsoCalled("max_predict_samples max_test_samples")]
    public int MaxTestRows { get; set; }
    /// <summary>What happens to texts that two splits hold: an error, dropped from training, or allowed.</summary>
    [Identity(Identity.Rows)]
    public DuplicateTexts OnDuplicate { get; set; }
    /// <summary>What the file calls a column that a form of rows has.</summary>
    /// <param name="name">messages, prompt, text and so on.</param>
    internal string Column(string name) =>
        Columns.GetValueOrDefault(name) ?? (name switch { "text" => TextField, "label" => LabelField, _ => name });
    /// <summary>The hub name that <see cref="Train"/> was resolved from. A field: it is no key of a recipe.</summary>
    public string? TrainHub;
    /// <summary>The same for <see cref="Validation"/>.</summary>
    public string? ValidationHub;
    /// <summary>The same for <see cref="Test"/>.</summary>
    public string? TestHub;
}

/// <summary>
/// What a row becomes and what is measured. Keys that only some tasks take stand with those tasks
/// (<see cref="TaskType.Keys"/>).
/// </summary>
public sealed partial class TaskOptions
{
    /// <summary>
    /// What the rows are made into: label_words, conversation, completion, instruction, text or preference; auto goes
    /// by the columns of the training rows.
    /// </summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("dataset_format dataset_type stage")]
    public string Type { get; set; } = TaskTypes.Auto;
    /// <summary>Longest row, tokens: prompt plus answer; of a longer one the longest text is cut at its end.</summary>
    [Identity(Identity.Rows)]
    [Range(2)]
    [AlsoCalled("max_length sequence_len max_seq_len cutoff_len model_max_length block_size seq_length seq_len")]
    public int MaxSeqLength { get; set; } = 512;
}
