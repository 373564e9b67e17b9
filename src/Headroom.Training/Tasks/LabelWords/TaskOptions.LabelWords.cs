namespace Headroom.Training;

/// <summary>Keys of label words.</summary>
public sealed partial class TaskOptions
{
    /// <summary>
    /// Prompt with {text}, the data's text_field, or with columns of the data by name, such as {premise} and
    /// {hypothesis}; {{ and }} are plain braces. Blanks
    /// at its end go to the label words.
    /// </summary>
    [Identity(Identity.Rows)]
    public string Template { get; set; } = "Review: {text}\nSentiment:";
    /// <summary>Label value to label word, in order: the first is the negative class.</summary>
    [Identity(Identity.Rows)]
    public Dictionary<string, string> Labels { get; set; } = new() { ["0"] = " negative", ["1"] = " positive" };
    /// <summary>answer or all: which tokens the loss counts.</summary>
    [Identity(Identity.Rows)]
    public string Loss { get; set; } = "answer";
    /// <summary>Replacements in the text before tokenizing.</summary>
    [Identity(Identity.Rows)]
    public Dictionary<string, string> Replace { get; set; } = [];
}
