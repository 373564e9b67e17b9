using System.CommandLine;
using Headroom.Cli;
using Headroom.Core;

var root = new RootCommand("Headroom: fine-tune Llama-class language models in the memory you have, and know before you start what it will take.");
var verbose = new Option<bool>("--verbose") { Description = "Show stack traces of failures.", Recursive = true };
root.Options.Add(verbose);
root.Subcommands.Add(InspectCommand.Create());
root.Subcommands.Add(PlanCommand.Create());
root.Subcommands.Add(TrainCommand.Create());
root.Subcommands.Add(DuelCommand.Create());
root.Subcommands.Add(PretrainCommand.Create());
root.Subcommands.Add(EvalCommand.Create());
root.Subcommands.Add(GenerateCommand.Create());
root.Subcommands.Add(ChatCommand.Create());
root.Subcommands.Add(ExportCommand.Create());
root.Subcommands.Add(QuantizeCommand.Create());
root.Subcommands.Add(CacheCommand.Create());
root.Subcommands.Add(DataCommand.Create());
root.Subcommands.Add(ReportCommand.Create());
root.Subcommands.Add(BenchCommand.Create());
root.Subcommands.Add(DoctorCommand.Create());
var parsed = root.Parse(args);
try
{
    return parsed.Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false });
}
catch (HeadroomException e)
{
    Console.Error.WriteLine("error: " + e.Message);
    Console.Error.WriteLine("  " + e.ToDo);
    if (parsed.GetValue(verbose)) Console.Error.WriteLine(e);
    return e.ExitCode;
}
catch (Exception e) when (!parsed.GetValue(verbose))
{
    Console.Error.WriteLine($"error: {e.GetType().Name}: {e.Message.Split('\n')[0]}");
    Console.Error.WriteLine("  This is a fault of Headroom; run again with --verbose and report what it prints.");
    return 1;
}
