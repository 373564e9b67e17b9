using System.Globalization;
using Headroom.Fuzz;

// See README.md.
var options = new Options();
string? side = args.FirstOrDefault();
for (int i = 1; i < args.Length; i++)
{
    string Value() => i + 1 < args.Length ? args[++i] : throw new ArgumentException($"{args[i]} lacks its value");
    switch (args[i])
    {
        case "--seed": options.Seed = ulong.Parse(Value(), CultureInfo.InvariantCulture); break;
        case "--cases": options.Cases = long.Parse(Value(), CultureInfo.InvariantCulture); break;
        case "--group": options.Group = long.Parse(Value(), CultureInfo.InvariantCulture); break;
        case "--most": options.Most = int.Parse(Value(), CultureInfo.InvariantCulture); break;
        case "--out": options.Out = Value(); break;
        case "--shared": options.Shared = Value(); break;
        case "--modules": options.Modules = Value(); break;
        case "--python": options.Python = Value(); break;
        default: side = null; break;
    }
}
switch (side)
{
    case "tokenizers": return TokenizerFuzz.Run(options);
    case "templates": return TemplateFuzz.Run(options);
    default:
        Console.Error.WriteLine(
            "Headroom.Fuzz tokenizers|templates [--cases N] [--seed S] [--group G] [--most N] [--out FILE] [--shared "
                + "FOLDER] [--modules FOLDER] [--python PROGRAM]"
        );
        return 2;
}
