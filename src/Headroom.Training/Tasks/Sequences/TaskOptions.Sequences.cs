using System.Text.Json.Serialization;
using Headroom.Core;

namespace Headroom.Training.Recipes;

/// <summary>Keys of the tasks that learn texts: conversations, completions, instructions, plain text.</summary>
public sealed partial class TaskOptions
{
    /// <summary>
    /// A chat template in place of the model's: a .jinja file, relative to the recipe, or the template itself.
    /// </summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("chat_template_path chat_template_jinja")]
    public string? ChatTemplate { get; set; }
    /// <summary>
    /// Whether an assistant's reasoning (reasoning_content, or what stands before &lt;/think&gt;) is learned with its
    /// answer.
    /// </summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("train_on_thinking")]
    public bool TrainOnReasoning { get; set; } = true;
    /// <summary>Whether of a conversation only the assistant's last turn is learned.</summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("train_on_last_turn_only mask_history train_on_last")]
    public bool LastTurnOnly { get; set; }
    /// <summary>
    /// What becomes of a row that is longer than max_seq_length: right cuts its end, left its beginning, each as long
    /// as no learned token of an answer is lost (else the row is left out, and counted), drop leaves it out, windows
    /// makes several rows of a text; null = windows for text, else right.
    /// </summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("truncation_mode truncation_side truncation_strategy excess_length_strategy")]
    public Truncation? Truncation { get; set; }
    /// <summary>
    /// Tokens of an answer, at most, where evaluations let the model answer every row anew (greedy) and compare that
    /// with the data's answer: exact_match, rouge_l and chrf; 0 = they measure losses alone.
    /// </summary>
    [Identity(Identity.Numbers)]
    [Range(0, 1 << 16)]
    [AlsoCalled("predict_with_generate generation_max_length eval_max_new_tokens eval_table_max_new_tokens")]
    public int AnswerTokens { get; set; }
    /// <summary>
    /// Tokens that a window of a long text has in common with the one before; they are read there and not learned
    /// again.
    /// </summary>
    [Identity(Identity.Rows)]
    [Range(0)]
    [AlsoCalled("doc_stride window_stride")]
    public int Stride { get; set; }
}

/// <summary>What becomes of rows that are too long.</summary>
[JsonConverter(typeof(SnakeCaseEnum<Truncation>))]
public enum Truncation : byte
{
    /// <summary>Their end is cut.</summary>
    Right,
    /// <summary>Their beginning is cut.</summary>
    Left,
    /// <summary>They are left out.</summary>
    Drop,
    /// <summary>They become several rows.</summary>
    Windows,
}
