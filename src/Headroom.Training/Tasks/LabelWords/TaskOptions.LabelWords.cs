using System.Text.Json.Serialization;
using Headroom.Core;

namespace Headroom.Training.Recipes;

/// <summary>Keys of label words.</summary>
public sealed partial class TaskOptions
{
    /// <summary>
    /// Prompt with {text}, the data's text_field, or with columns of the data by name, such as {premise} and
    /// {hypothesis}; {{ and }} are plain braces. Blanks at its end go to the label words.
    /// </summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("prompt_template prompt_style prompt_format formatting_func format instruction_template "
        + "response_template")]
    public string Template { get; set; } = "Review: {text}\nSentiment:";
    /// <summary>Label value to label word, in order: the first is the negative class.</summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("id2label label2id label_words verbalizer class_names")]
    public Dictionary<string, string> Labels { get; set; } = new() { ["0"] = " negative", ["1"] = " positive" };
    /// <summary>Which tokens the loss counts: the answer's, or all.</summary>
    [Identity(Identity.Rows)]
    [AlsoCalled("train_on_inputs completion_only_loss assistant_only_loss train_on_responses_only mask_prompt "
        + "train_on_prompt roles_to_train train_on_eos")]
    public LossTokens Loss { get; set; }
    /// <summary>Replacements in the text before tokenizing.</summary>
    [Identity(Identity.Rows)]
    public Dictionary<string, string> Replace { get; set; } = [];
}

/// <summary>Which tokens of a row the loss counts.</summary>
[JsonConverter(typeof(SnakeCaseEnum<LossTokens>))]
public enum LossTokens : byte
{
    /// <summary>Those of the answer.</summary>
    Answer,
    /// <summary>Every one.</summary>
    All,
}
